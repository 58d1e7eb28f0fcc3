"""Metrics of a rig's cards: whether they take work, and the canaries that they answered."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from workers.samples import alone, counter, gauge
from workers.slot import Slot

WORKER, OUTCOME = "worker", "outcome"


def card_families(slots: Sequence[Slot]) -> Iterator[Metric]:
    """Every family of cards, in the order of docs/metrics.md."""
    beats = [(slot.options.name, slot.heartbeat) for slot in slots if slot.heartbeat]
    out = {beat.card: float(beat.quarantined) for _, beat in beats if beat.card}
    yield gauge("rigflow_card_quarantined", "1 while a card takes no work: see `rigflow cards`.", ("card",), alone(out))
    canaries = (((name, outcome), float(n)) for name, beat in beats for outcome, n in beat.canaries.items())
    text = "Canaries that a worker's process computed: good, wrong, or failed to be computed."
    yield counter("rigflow_canaries", text, (WORKER, OUTCOME), canaries)

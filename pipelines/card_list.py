"""All cards of the fleet, for people: those of workers that run, and those that were quarantined once."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.broker import Broker
from pipelines.cards import canaries, card_records
from pipelines.status import process_statuses
from schemas.cards import CanaryRecord, CardRecord, CardState


class CardLine(BaseModel):
    """One card. `since_s`: when it was quarantined, `canary_s`: its last canary; 0: never.

    `workers` run on it now; `temperature_celsius` is its chip's, where it is known.
    """

    model_config = ConfigDict(frozen=True)
    card: str
    device: str = ""
    rig: str = ""
    state: CardState = CardState.TRUSTED
    reason: str = ""
    why: str = ""
    since_s: float = 0.0
    canary_s: float = 0.0
    temperature_celsius: float | None = None
    workers: tuple[str, ...] = ()


async def all_cards(broker: Broker) -> list[CardLine]:
    """The cards of the fleet, those out of work first. Raises BrokerError."""
    (workers, rigs), records, answers = await asyncio.gather(
        process_statuses(broker), card_records(broker), canaries(broker)
    )
    return card_lines(workers, rigs, records, answers)


def card_lines(
    workers: Sequence[Mapping[str, Any]],
    rigs: Sequence[Mapping[str, Any]],
    records: Iterable[CardRecord],
    answers: Iterable[CanaryRecord],
) -> list[CardLine]:
    """A line for each card."""
    running: dict[str, list[Mapping[str, Any]]] = {}
    for worker in workers:
        if worker.get("card"):
            running.setdefault(str(worker["card"]), []).append(worker)
    known = {record.card: record for record in records}
    canary_s: dict[str, float] = {}
    for answer in answers:
        canary_s[answer.card] = max(canary_s.get(answer.card, 0.0), answer.at_s if answer.last else 0.0)
    heat = {gpu["uuid"]: gpu.get("temperature_celsius") for rig in rigs for gpu in rig.get("gpus", ())}
    lines = [
        _line(card, running.get(card, []), known.get(card), canary_s.get(card, 0.0), heat.get(card))
        for card in running.keys() | known.keys()
    ]
    return sorted(lines, key=lambda line: (line.state is CardState.TRUSTED, line.rig, line.card))


def _line(
    card: str,
    workers: Sequence[Mapping[str, Any]],
    record: CardRecord | None,
    canary_s: float,
    temperature_celsius: float | None,
) -> CardLine:
    first = workers[0] if workers else {}
    line = CardLine(
        card=card,
        device=str(first.get("gpu", {}).get("name") or first.get("device", "")),
        rig=str(first.get("rig") or first.get("host") or (record.rig if record else "")),
        canary_s=canary_s,
        temperature_celsius=temperature_celsius,
        workers=tuple(sorted(str(worker["worker"]) for worker in workers)),
    )
    if record is None or record.works:
        return line
    update = {"state": record.state, "reason": record.reason.value, "why": record.why, "since_s": record.at_s}
    return line.model_copy(update=update)

"""Doubts of cards, canaries of pipelines, and the lines of `rigflow cards`."""

from types import SimpleNamespace
from typing import Any

import pytest

from engines.canary import canary_of
from engines.gathering import Gathering
from engines.part import Part
from pipelines.card_list import card_lines
from pipelines.registry import builtin_pipeline, builtin_pipelines
from schemas.cards import CardRecord, CardState, Doubt, Doubts, Reason, card_name, mark_of, most_telling
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from workers.in_flight import State
from workers.recent import MESSAGE_BYTES, MOST_BYTES, Recent
from workers.trust import Trust


def record(*spans: tuple[int, int], state: CardState = CardState.QUARANTINED) -> CardRecord:
    doubts = tuple(Doubt(since_ms=since, until_ms=until) for since, until in spans)
    return CardRecord(card="a", state=state, reason=Reason.CANARY, why="it errs", doubts=doubts)


def test_what_a_card_did_since_its_last_good_canary_is_in_doubt_until_it_is_trusted_again() -> None:
    doubts = Doubts([record((100, 200), (300, 0))])
    assert [doubts.has(mark_of("a", at)) for at in (99, 100, 199, 200, 299, 300, 10**12)] == [
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert not doubts.any([mark_of("b", 150), "a@", "a@x", "a", "a@1@150", ""])
    assert doubts.cards([mark_of("a", 150), mark_of("b", 150)]) == ["a"]


def test_doubts_grow_end_and_stay_bounded() -> None:
    known = record()
    for at_ms in range(0, 100_000, 1000):
        known = known.doubted(at_ms + 500).doubted(at_ms + 200).trusted(at_ms + 900)
    assert len(known.doubts) <= 17
    assert known.works
    assert Doubts([known]).has(mark_of("a", 200)), "the oldest spans are joined, not dropped"
    assert not Doubts([known]).has(mark_of("a", 99_950))
    assert Doubts([known]).has(mark_of("a", 99_300))


def test_the_part_of_a_film_has_the_newest_mark_of_each_of_many_cards_and_room_for_more() -> None:
    gathering, media = Gathering(), MediaInfo(kind="video")
    marks = [mark_of(card, minute) for card in ("old", "a", "b") for minute in range(500)]
    for number, mark in enumerate(marks):
        key = Key(job=JobRef(id="j", pipeline="p", revision="r"), segment=number)
        gathering.add(PartMeta(key=key, media=media, cards=(mark,)), {})
    meta, trust = gathering.part(len(marks)).meta, Trust("c", "w")
    assert {mark_of(card, 499) for card in ("old", "a", "b")} <= set(meta.cards)
    signed = trust.signed(Part(meta, {})).meta
    assert trust.mark in PartMeta.model_validate(signed.model_dump(mode="json")).cards
    assert most_telling(marks[:5]) == tuple(marks[:5])


def test_many_small_inputs_are_kept_within_the_bytes_that_they_take_in_memory() -> None:
    broker: Any = SimpleNamespace(settings=SimpleNamespace(canary_minutes=1.0))
    recent, kept = Recent(broker, Trust("c", "w")), MOST_BYTES // MESSAGE_BYTES
    job, queue = JobRef(id="j", pipeline="p", revision="r"), SimpleNamespace(stage="infer")
    message: Any = SimpleNamespace(job=job, state=State.ACKED, queue=queue, delivery=SimpleNamespace(nbytes=0))
    for _ in range(kept + 5):
        recent.add(message)
    assert recent.full.is_set()
    assert recent.left_out == 5
    recent.begin()
    recent.good()
    recent.add(message)
    assert recent.left_out == 0


def test_what_was_finished_before_a_good_canary_is_not_done_again_whatever_the_clock_says() -> None:
    """The clock of a machine may be put right between the two, by years."""
    broker: Any = SimpleNamespace(settings=SimpleNamespace(canary_minutes=1.0))
    recent, queue = Recent(broker, Trust("c", "w")), SimpleNamespace(stage="infer")
    before, during, after = (
        SimpleNamespace(job=job, state=State.ACKED, queue=queue, delivery=SimpleNamespace(nbytes=10))
        for job in ("before", "during", "after")
    )
    recent.add(before)  # type: ignore[arg-type]
    recent.begin()  # it fails
    recent.begin()
    recent.add(during)  # type: ignore[arg-type]
    recent.good()
    recent.add(after)  # type: ignore[arg-type]
    assert [done.job for done in recent._done] == ["during", "after"]
    recent.begin()
    recent.good()
    assert not recent._done
    assert recent._held == 0


def test_the_name_of_a_card_is_one_token() -> None:
    assert card_name("GPU-1", "worker") == "GPU-1"
    assert card_name("", "host.example-77") == "host-example-77"
    assert card_name("", "...") == "cpu"


@pytest.mark.parametrize("name", sorted(set(builtin_pipelines()) - {"infer"}))
def test_each_pipeline_has_a_canary_that_is_always_the_same(name: str) -> None:
    spec = builtin_pipeline(name)
    first, second = canary_of(spec), canary_of(spec)
    assert first is not None
    assert second is not None
    assert first.sha256 == second.sha256
    assert sum(len(bytes(each)) for _, buffers in first.segments for each in buffers) < 1 << 17


def test_cards_out_of_work_come_first_also_without_a_worker() -> None:
    workers = [
        {"worker": "r-cuda0", "card": "GPU-1", "rig": "r", "device": "cuda:0", "gpu": {"name": "P104"}},
        {"worker": "r-cuda1", "card": "GPU-1", "rig": "r", "device": "cuda:0", "gpu": {"name": "P104"}},
        {"worker": "old", "device": "cpu"},
    ]
    rigs = [{"rig": "r", "gpus": [{"uuid": "GPU-1", "temperature_celsius": 61.0}]}]
    lines = card_lines(workers, rigs, [record()], [])
    assert [line.card for line in lines] == ["a", "GPU-1"]
    assert lines[1].workers == ("r-cuda0", "r-cuda1")
    assert (lines[1].device, lines[1].temperature_celsius) == ("P104", 61.0)

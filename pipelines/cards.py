"""Which cards the fleet does not trust, and their answers to canaries, in a bucket of the broker as json.

`card.<card>` -> CardRecord, `canary.<card>.<group>` -> CanaryRecord. Records of cards are changed by compare-and-set.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from pipelines.broker import DELETED, Broker
from pipelines.connection import Forbidden
from pipelines.values import Model, decoded, report_skipped
from schemas.cards import CanaryRecord, CardRecord, CardState, Doubts, Reason
from schemas.declared import is_token
from schemas.errors import BrokerError, NotFound, UsageError

ROUNDS = 3  # of canaries, which a worker that runs does not leave out
_LOOK_S = 0.1


async def card_record(broker: Broker, card: str) -> CardRecord | None:
    """What the fleet holds of a card; None for one that was never quarantined. Raises BrokerError."""
    return _record(card, await broker.get(broker.names.profiles, f"card.{card}") if is_token(card) else None)


async def card_records(broker: Broker) -> list[CardRecord]:
    """All cards that were quarantined once, by name. Raises BrokerError."""
    return sorted(await _all(broker, CardRecord, "card.*"), key=lambda record: record.card)


async def out_of_work(broker: Broker) -> set[str]:
    """The cards that take no work. Raises BrokerError."""
    return {record.card for record in await card_records(broker) if not record.works}


async def readable_records(broker: Broker) -> list[CardRecord]:
    """`card_records`; none where permissions of an earlier version hide them. Raises BrokerError."""
    try:
        return await card_records(broker)
    except Forbidden:
        report_skipped("verdicts on cards", "the permissions forbid it: write them again, `rigflow topology roles`")
        return []


async def doubts(broker: Broker) -> Doubts:
    """What is in doubt of all cards. Raises BrokerError."""
    return Doubts(await readable_records(broker))


def doubt_text(cards: Iterable[str]) -> str:
    """What the record of a job says of these cards when it is over."""
    return f"card {', '.join(cards)} was found to answer wrongly after it computed parts of this job"


async def quarantine(
    broker: Broker, card: str, reason: Reason, why: str, since_ms: int, rig: str = ""
) -> tuple[CardRecord, bool]:
    """Take a card out of work; what it computed since then is in doubt.

    Of a card that is quarantined already, only the span grows. Returns its record, and whether it is quarantined now
    and was not before. Raises BrokerError.
    """
    new = CardRecord(card=card, state=CardState.QUARANTINED, reason=reason, why=why, rig=rig, at_s=broker.now_s())

    def changed(before: CardRecord | None) -> CardRecord:
        if before is None:
            return new.doubted(since_ms)
        if before.state is CardState.QUARANTINED:
            return before.doubted(since_ms)
        return new.model_copy(update={"doubts": before.doubts, "rig": rig or before.rig}).doubted(since_ms)

    before, record = await _change(broker, card, changed)
    assert record is not None
    return record, before is None or before.state is not CardState.QUARANTINED


async def extend_doubt(broker: Broker, card: str, since_ms: int) -> None:
    """Have the newest doubt of a card begin then, whether the card works by now or not. Raises BrokerError."""
    await _change(broker, card, lambda before: before and before.doubted_from(since_ms))


async def quarantine_lost(broker: Broker, card: str, why: str, rig: str) -> None:
    """Quarantine a card that had a fault; what it did since its last good canary is in doubt.

    What goes wrong is logged: the rig has taken the card out of work already.
    """
    try:
        await quarantine(broker, card, Reason.FAULT, why, await good_ms(broker, card), rig)
    except BrokerError as error:
        report_skipped(f"the verdict on card {card}", str(error))


async def good_ms(broker: Broker, card: str) -> int:
    """The time until which a card was good by all of its workers, in milliseconds since 1970; now if it never was.

    Workers that have computed no canary for some rounds have gone.
    """
    last: dict[str, int] = {}
    for each in await canaries(broker, card):
        last[each.worker] = max(each.good_ms, last.get(each.worker, 0))
    newest = max(last.values(), default=0)
    gone_ms = newest - int(ROUNDS * 60_000 * broker.settings.canary_minutes)
    return min((at_ms for at_ms in last.values() if at_ms >= max(1, gone_ms)), default=broker.now_ms())


def check_readmittable(card: str, record: CardRecord | None) -> CardRecord:
    """The record of a card that is out of work. Raises NotFound, UsageError for one that works."""
    if record is None:
        raise NotFound(f"no card {card[:100]!a} is quarantined", "see `rigflow cards`")
    if record.works:
        raise UsageError(f"card {card} works already", "see `rigflow cards`")
    return record


async def ask_to_readmit(broker: Broker, card: str) -> CardRecord:
    """Have a quarantined card's worker check it. Raises NotFound, UsageError for one that works."""

    def changed(before: CardRecord | None) -> CardRecord:
        before = check_readmittable(card, before)
        return before.model_copy(update={"state": CardState.CHECKING, "asked_s": broker.now_s()})

    _, record = await _change(broker, card, changed)
    assert record is not None
    return record


async def readmit(broker: Broker, card: str) -> bool:
    """Trust a card that is being checked; False if a person or a verdict was faster."""
    return await _after_check(broker, card, lambda before: before.trusted(broker.now_ms()))


async def refuse(broker: Broker, card: str, why: str) -> bool:
    """Keep a card that is being checked out of work; False if a person or a verdict was faster."""
    update = {"state": CardState.QUARANTINED, "why": why, "at_s": broker.now_s()}
    return await _after_check(broker, card, lambda before: before.model_copy(update=update))


async def checked(broker: Broker, card: str, within_s: float) -> CardRecord | None:
    """The record of a card once its check is over; None if that takes longer than `within_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                record = await card_record(broker, card)
                if record is None or record.state is not CardState.CHECKING:
                    return record
                await asyncio.sleep(_LOOK_S)
    return None


async def _after_check(broker: Broker, card: str, change: Callable[[CardRecord], CardRecord]) -> bool:
    done = False

    def changed(before: CardRecord | None) -> CardRecord | None:
        nonlocal done
        done = before is not None and before.state is CardState.CHECKING
        return change(before) if before is not None and done else None

    await _change(broker, card, changed)
    return done


async def _change(
    broker: Broker, card: str, changed: Callable[[CardRecord | None], CardRecord | None]
) -> tuple[CardRecord | None, CardRecord | None]:
    """Replace a record by what `changed` makes of it, None: it stays; the record before and after."""
    if not is_token(card):  # a wildcard in it would find another card
        raise NotFound(f"there is no card {card[:100]!a}", "see `rigflow cards`")
    bucket, key = broker.names.profiles, f"card.{card}"
    while True:
        entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        before = _record(card, None if entry is None or DELETED in entry.headers else entry.body)
        after = changed(before)
        if after is None or after == before:
            return before, before
        sequence = 0 if entry is None else entry.sequence
        if await broker.replace(bucket, key, after.model_dump_json().encode(), sequence):
            return before, after


def _record(card: str, body: bytes | None) -> CardRecord | None:
    return None if body is None else decoded(CardRecord, body, f"the record of card {card}")


# answers to canaries


async def put_canary(broker: Broker, answer: CanaryRecord) -> None:
    """Store a card's answers of one group. Raises BrokerError."""
    key = f"canary.{answer.card}.{answer.group}"
    await broker.put(broker.names.profiles, key, answer.model_dump_json().encode())


async def canaries(broker: Broker, card: str = "*", group: str = "*") -> list[CanaryRecord]:
    """Answers of cards and groups. Raises BrokerError."""
    return await _all(broker, CanaryRecord, f"canary.{card}.{group}")


async def forget_canary(broker: Broker, answer: CanaryRecord) -> None:
    """Delete a card's answers of one group. Raises BrokerError."""
    await broker.delete_key(broker.names.profiles, f"canary.{answer.card}.{answer.group}")


async def _all(broker: Broker, kind: type[Model], keys: str) -> list[Model]:
    found = await broker.items(broker.names.profiles, keys)
    each = (decoded(kind, body, f"the record {key}") for key, body in found.items())
    return [record for record in each if record is not None]

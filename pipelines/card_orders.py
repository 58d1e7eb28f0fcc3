"""Orders of a person about cards, with their entries in the audit log."""

from pipelines.audit import audit
from pipelines.broker import Broker
from pipelines.card_list import all_cards
from pipelines.cards import ask_to_readmit, card_record, check_readmittable, good_ms, quarantine
from schemas.cards import CardRecord, Reason
from schemas.errors import NotFound


async def order_quarantine(broker: Broker, card: str, why: str) -> CardRecord:
    """Quarantine a card that the fleet knows; what it did since its last good canary is in doubt. Raises NotFound."""
    known = {line.card: line for line in await all_cards(broker)}
    if card not in known:
        there = ", ".join(sorted(known))
        raise NotFound(f"there is no card {card[:100]!a}", f"known are {there}" if there else "see `rigflow status`")
    await audit(broker, "card-quarantined", card, why=why)
    since_ms = await good_ms(broker, card)
    return (await quarantine(broker, card, Reason.ORDER, why, since_ms, known[card].rig))[0]


async def order_readmit(broker: Broker, card: str) -> CardRecord:
    """Have a quarantined card checked. Raises NotFound, UsageError."""
    check_readmittable(card, await card_record(broker, card))
    await audit(broker, "card-readmitted", card)
    return await ask_to_readmit(broker, card)

"""`rigflow cards`: which cards the fleet does not trust, why, and how they work again."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli.answers import Answer, answers
from cli.help import Commands
from cli.interrupts import run_async
from cli.options import Json, command_of, on_fleet
from cli.text import cell, moment, one_line, say_json, sentence, stdout, warn
from schemas.errors import ExitCode

if TYPE_CHECKING:
    from cli.tables import Given
    from pipelines.broker import Broker
    from pipelines.card_list import CardLine
    from schemas.cards import CardRecord
    from schemas.settings import Settings

app = Commands(name="cards", invoke_without_command=True)
CHECK_S = 60.0  # that `readmit` waits for a check
TITLES = ("card", "device", "rig", "state", "since", "last canary", "temperature", "why")


@app.callback()
@on_fleet
def cards(context: typer.Context, as_json: Json = False, *, settings: "Settings") -> ExitCode | None:
    """List the fleet's cards, those out of work first; or take cards out of work, and back.

    A card is a GPU, or a worker on a CPU. One that answers canaries wrongly, or whose driver reports a fault, is
    quarantined: it takes no work, and its last parts are done again elsewhere.

    Example: rigflow cards
    """
    if command_of(context):
        return None
    from pipelines.broker import Broker
    from pipelines.card_list import all_cards

    async def found() -> "list[CardLine]":
        async with Broker.connected(settings, name="rigflow-cards") as broker:
            return await all_cards(broker)

    lines = run_async(found())
    if as_json:
        say_json([line.model_dump(mode="json") for line in lines])
    elif lines:
        from cli.tables import list_of

        stdout().print(list_of(TITLES, map(_row, lines), left=4, unless={"temperature": ""}, named=("card",)))
    else:
        stdout().print("no cards: no worker has reported yet")
    return ExitCode.OK


def _row(line: "CardLine") -> "list[Given]":
    heat = "" if line.temperature_celsius is None else f"{line.temperature_celsius:.0f} °C"
    return [
        *map(one_line, (line.card, line.device.removeprefix("NVIDIA "), line.rig)),
        cell(line.state.value, "" if line.state == "trusted" else "red"),
        moment(line.since_s) if line.since_s else "",
        moment(line.canary_s) if line.canary_s else "",
        heat,
        sentence(line.why),
    ]


Cards: TypeAlias = Annotated[list[str], typer.Argument(help="Cards, as `rigflow cards` has them.", metavar="CARD...")]


@app.command("quarantine")
@on_fleet
def quarantine_(
    names: Cards,
    why: Annotated[str, typer.Option(help="The reason, for those who look later.", metavar="TEXT")] = "by an order",
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Take cards out of work; what they did since their last good canary is done again elsewhere.

    Example: rigflow cards quarantine rig-7-cpu0 --why "its results look odd"
    """
    from pipelines.broker import Broker
    from pipelines.card_orders import order_quarantine

    async def acting() -> None:
        async with Broker.connected(settings, name="rigflow-cards") as broker:
            for name in names:
                record = await order_quarantine(broker, name, why)
                answer(f"{name}: is quarantined, and takes no more work", **record.model_dump(mode="json"))

    with answers(as_json) as answer:
        run_async(acting())
    return ExitCode.OK


@app.command("readmit")
@on_fleet
def readmit_(names: Cards, as_json: Json = False, *, settings: "Settings") -> ExitCode:
    """Have cards work again that pass a check: their models are loaded anew, and canaries computed.

    Exit code 1 if one does not pass.

    Example: rigflow cards readmit rig-7-cpu0
    """
    from pipelines.broker import Broker

    async def acting() -> bool:
        async with Broker.connected(settings, name="rigflow-cards") as broker:
            return all([await _readmitted(broker, name, answer) for name in names])

    with answers(as_json) as answer:
        passed = run_async(acting())
    return ExitCode.OK if passed else ExitCode.SOME_FAILED


async def _readmitted(broker: "Broker", name: str, answer: Answer) -> bool:
    from pipelines.card_orders import order_readmit
    from pipelines.cards import checked

    await order_readmit(broker, name)
    record: CardRecord | None = await checked(broker, name, CHECK_S)
    if record is None:
        warn(f"{name}: no worker has checked it in {CHECK_S:.0f} s; it is checked as soon as one runs on it")
        return False
    text = "works again" if record.works else f"stays quarantined, {record.why}"
    answer(f"{name}: {text}", **record.model_dump(mode="json"))
    return record.works

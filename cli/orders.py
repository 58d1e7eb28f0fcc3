"""`rigflow rig cordon` and its kin: have rigs and workers take no more work, and take it again."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli.answers import answers
from cli.interrupts import run_async
from cli.options import Credentials, FleetUrl, Json, SettingsFile, ends_well, fleet_from, on_fleet
from cli.text import warn
from schemas.errors import ExitCode

if TYPE_CHECKING:
    from pipelines.broker import Broker
    from pipelines.orders import Kind
    from schemas.settings import Settings

    Act = Callable[[Broker, str], Awaitable[None]]

Names: TypeAlias = Annotated[list[str], typer.Argument(help="Names, as `rigflow status` has them.", metavar="NAME...")]
_STAYS = "The order stays until the next one, also when they are started again."
_ORDERS = {  # command -> the order, its help, and what it prints
    "cordon": ("cordon", "{} take no more work, and finish what they hold.", _STAYS, "takes no more work"),
    "drain": (
        "drain",
        "{} take no more work, and hand back what they hold.",
        f"They finish what they can within stop_grace_s; other workers do the rest. {_STAYS}",
        "takes no more work, and hands back what it does not finish",
    ),
    "resume": ("work", "{} take work again, after cordon or drain.", "", "takes work"),
}


def add_orders(app: typer.Typer, kind: "Kind") -> None:
    """Add the commands `cordon`, `drain` and `resume` to those of rigs or of workers."""
    whom, one = ("Have all workers of rigs", "rig-7") if kind == "rig" else ("Have workers", "rig-7-cpu0")
    for command, (order, first, more, done) in _ORDERS.items():
        texts = (first.format(whom), more, f"Example: rigflow {kind} {command} {one}")
        app.command(command, help="\n\n".join(filter(None, texts)))(_ordering(kind, order, done))


def _ordering(kind: "Kind", order: str, done: str) -> Callable[..., None]:
    @ends_well
    def command(
        names: Names,
        as_json: Json = False,
        nats: FleetUrl = None,
        credentials: Credentials = None,
        settings_file: SettingsFile = None,
    ) -> ExitCode:
        from pipelines.orders import Order, carried_out, give_order

        settings = fleet_from(settings_file, nats=nats, credentials=credentials)
        given = Order(order)

        async def ordered(broker: "Broker", name: str) -> None:
            await give_order(broker, kind, name, given)
            if not await carried_out(broker, kind, name):
                warn(f"{name}: not all of its workers have answered yet; `rigflow status` shows them")

        _each(settings, names, ordered, done, as_json)
        return ExitCode.OK

    return command


@on_fleet
def forget(
    names: Names,
    as_json: Json = False,
    *,
    settings: "Settings",
) -> ExitCode:
    """Forget rigs that stopped or were lost: `rigflow status` does not show them any more.

    A fleet forgets them by itself after rigs_age_s, which is a week.

    Example: rigflow rig forget rig-7
    """
    from pipelines.orders import forget_rig

    _each(settings, names, forget_rig, "is forgotten", as_json)
    return ExitCode.OK


def _each(settings: "Settings", names: list[str], act: "Act", done: str, as_json: bool) -> None:
    """Do something with each name, and print that; the first error ends it."""
    from pipelines.broker import Broker

    async def acting() -> None:
        async with Broker.connected(settings, name="rigflow-orders") as broker:
            for name in names:
                await act(broker, name)
                answer(f"{name}: {done}", name=name, done=done)

    with answers(as_json) as answer:
        run_async(acting())

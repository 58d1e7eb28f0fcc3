"""What `revoke` of API keys and of join tokens has in common."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cli.answers import answers
from cli.interrupts import run_async
from schemas.errors import ExitCode

if TYPE_CHECKING:
    from pipelines.broker import Broker
    from schemas.api_keys import ApiKey
    from schemas.join_tokens import JoinToken
    from schemas.settings import Settings

SECRETS = {"sha256", "box"}


def revoked(
    settings: "Settings",
    revoke: "Callable[[Broker, str], Awaitable[ApiKey | JoinToken]]",
    name: str,
    what: str,
    as_json: bool,
) -> ExitCode:
    """Revoke what has a name or id, and say so."""
    from pipelines.broker import Broker

    async def run() -> "ApiKey | JoinToken":
        async with Broker.connected(settings, name="rigflow-keys") as broker:
            return await revoke(broker, name)

    with answers(as_json) as answer:
        found = run_async(run())
        answer(f"{what} {found.name} is revoked", **found.model_dump(mode="json", exclude=SECRETS))
    return ExitCode.OK

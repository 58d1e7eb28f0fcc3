"""Leases of work that mostly waits (splitting under back-pressure, collecting): renewed while the task lives."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.settings import Settings
from workers.lease import Lease


@asynccontextmanager
async def kept_alive(lease: Lease, settings: Settings) -> AsyncIterator[None]:
    """Renew `lease` every third of ack_wait; hand it back when the task is cancelled."""

    async def renew() -> None:
        while time.monotonic() - lease.taken_s < settings.work_deadline_s:
            await asyncio.sleep(settings.ack_wait_s / 3)
            await lease.delivery.progress()

    renewing = asyncio.create_task(renew())
    try:
        yield
    except asyncio.CancelledError:
        await asyncio.shield(lease.release())
        raise
    finally:
        renewing.cancel()

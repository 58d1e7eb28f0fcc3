"""What tenants may use in a day, and when they may again: seconds of devices, as the ends of jobs were recorded."""

import math
import time
from dataclasses import dataclass, field

from pipelines.message_store import FleetFull, MessageStore
from schemas.errors import Disposition, StoreError
from schemas.tenants import Tenant
from schemas.text import size
from schemas.usage import EndedJob, day_of

LOOK_S = 5.0  # between two looks at what a tenant has used: jobs that end meanwhile count a little later
DAY_S = 86400.0


class QuotaReached(StoreError):
    """A tenant has used what it may; after `again_s` it may send again."""

    disposition = Disposition.REJECT

    def __init__(self, tenant: str, used_s: float, may_s: float, again_s: float) -> None:
        what = f"tenant {tenant} has used {used_s:,.0f} s of devices today, and may use {may_s:,.0f} s"
        super().__init__(what, f"send it again after 00:00 UTC, in {_hours(again_s)}")
        self.again_s = again_s


class TenantFull(FleetFull):
    """As much of a tenant waits in one pipeline as may."""

    def __init__(self, name: str, tenant: Tenant) -> None:
        may = f"{tenant.jobs:,} media or {size(tenant.queued_bytes)}"
        what = f"tenant {name} has as much waiting in this pipeline as it may, {may}"
        more = f"raise the limit by `rigflow tenants limit {name} --jobs N --queued-bytes BYTES`"
        super().__init__(what, f"send it again when some of it is done, or {more}")


class StorageFull(StoreError):
    """Unfinished jobs fill all that a tenant may store: its work is done again later, and others go on."""

    disposition = Disposition.ELSEWHERE

    def __init__(self, tenant: str) -> None:
        more = f"raise storage_bytes by `rigflow tenants limit {tenant} --storage-bytes BYTES`"
        hint = f"cancel jobs, or wait until some are done, or {more}"
        super().__init__(f"unfinished jobs of tenant {tenant} fill all that it may store", hint)


@dataclass(slots=True)
class _Used:
    """The seconds of each job of a tenant, by the subject of its use, that it began on one day."""

    day: str
    seconds: dict[str, float] = field(default_factory=dict)
    next: int = 1  # the sequence to go on from
    looked_s: float = -LOOK_S  # monotonic


class Quotas:
    """Counts the seconds of devices of the jobs that a tenant began today (UTC); each look goes on where one ended.

    The day is that of the broker's clock: those of the machines may be wrong.
    """

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        self._used: dict[str, _Used] = {}

    async def used_s(self, tenant: str) -> float:
        """Seconds that the jobs of a tenant took which began today, and are over."""
        used = self._used.get(tenant)
        if used is None or time.monotonic() - used.looked_s >= LOOK_S:
            used = await self._look(tenant)
        return sum(used.seconds.values())

    async def _look(self, tenant: str) -> _Used:
        names = self._store.names
        await self._store.read_clock()
        day = day_of(self._store.now_s())
        used = self._used.get(tenant)
        if used is None or used.day != day:
            used = self._used[tenant] = _Used(day)
        subject = names.usage(tenant, "*", "*", day, "*")
        async for stored in self._store.read(names.usage_stream, subject, used.next):
            used.next = stored.sequence + 1
            used.seconds[stored.subject] = _seconds_of(stored.body)
        used.looked_s = time.monotonic()
        return used

    async def check(self, tenant: str) -> None:
        """Raise QuotaReached when a tenant has used all that it may today."""
        listed = self._store.tenants.get(tenant)
        if listed is None or not listed.device_s_a_day:
            return
        used_s = await self.used_s(tenant)
        if used_s >= listed.device_s_a_day:
            raise QuotaReached(tenant, used_s, listed.device_s_a_day, DAY_S - self._store.now_s() % DAY_S)


def _hours(seconds: float) -> str:
    minutes = max(1, math.ceil(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _seconds_of(body: bytes) -> float:
    try:
        return EndedJob.model_validate_json(body).computed_s
    except ValueError:
        return 0.0

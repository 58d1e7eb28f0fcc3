"""What a worker does for each pipeline: everything, or the part that the fleet's placement gives its device."""

import asyncio
import logging
import time
from collections.abc import Callable

from pipelines.broker import Broker
from pipelines.placements import follow_placements
from pipelines.streams import RIG_AGE_S
from schemas.placed import PlacedDevice, PlacedPipeline
from workers.telemetry import Event, log_event

CHECK_EVERY_S = 1.0
_GRACE_S = 2.0  # that a placement counts for after the broker forgot it: a renewal may be late


class WorkerRoles:
    """The roles of one worker by pipeline. A pipeline without one is done entirely."""

    def __init__(self) -> None:
        self._roles: dict[str, tuple[PlacedDevice, float]] = {}  # and when it was last renewed
        self.on_change: Callable[[], None] = lambda: None

    def takes(self, pipeline: str, stage: str) -> bool:
        """Whether it takes from the queue of a stage."""
        role = self._roles.get(pipeline)
        return role is None or stage in role[0].takes

    def gives_away(self, pipeline: str, stage: str) -> bool:
        """Whether parts for a stage go to its queue, for others."""
        role = self._roles.get(pipeline)
        return role is not None and stage not in role[0].runs

    def shown(self) -> dict[str, dict[str, object]]:
        """The roles for the status."""
        return {pipeline: role.model_dump(mode="json") for pipeline, (role, _) in sorted(self._roles.items())}

    def renew(self, placed: PlacedPipeline, device: str, now_s: float) -> None:
        """Take the role that a placement gives the worker's device."""
        role = placed.devices.get(device)
        known = self._roles.get(placed.pipeline)
        if role is None:
            self._drop(placed.pipeline)
            return
        self._roles[placed.pipeline] = role, now_s
        if known is None or known[0] != role:
            runs = ", ".join(role.runs) or "nothing"
            facts = {"pipeline": placed.pipeline, "runs": " ".join(role.runs), "takes": " ".join(role.takes)}
            text = f"runs {runs} of pipeline {placed.pipeline}: {role.why}"
            log_event(Event("placed", text, logging.INFO, facts))
            self.on_change()

    def expire(self, now_s: float) -> None:
        """Drop roles that no rig renews any more."""
        for pipeline, (_, since_s) in list(self._roles.items()):
            if now_s - since_s > RIG_AGE_S + _GRACE_S:
                self._drop(pipeline)

    def _drop(self, pipeline: str) -> None:
        if self._roles.pop(pipeline, None) is not None:
            text = f"runs all stages of pipeline {pipeline}: there is no placement of it any more"
            log_event(Event("placed", text, logging.INFO, {"pipeline": pipeline}))
            self.on_change()


async def follow_roles(broker: Broker, roles: WorkerRoles, device: str) -> None:
    """Follow the placements of the fleet for a device until cancelled."""
    expiring = asyncio.create_task(_expire(roles))
    try:
        async for placed in follow_placements(broker):
            roles.renew(placed, device, time.monotonic())
    finally:
        expiring.cancel()
        await asyncio.gather(expiring, return_exceptions=True)


async def _expire(roles: WorkerRoles) -> None:
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        roles.expire(time.monotonic())

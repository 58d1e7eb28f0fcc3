"""What the other workers of a fleet do, by their statuses: which are free, and how long each takes for a message."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.broker import Broker
from pipelines.status import running_statuses
from schemas.errors import RigflowError
from schemas.rig import runs_stage

WORKS = ("idle", "working")  # states in which a worker takes messages


@dataclass(frozen=True, slots=True)
class Peer:
    """Another worker: whether it has nothing to do, and its seconds of a message by pipeline and stage."""

    name: str
    free: bool
    message_s: Mapping[tuple[str, str], float]


class Peers:
    """The other workers that take messages, as they were at the last `refresh`."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._name = name
        self.known: list[Peer] = []
        self.seen_s = 0.0  # of the monotonic clock

    async def refresh(self) -> None:
        """Read their statuses; those that cannot be read now are as they were."""
        try:
            async with asyncio.timeout(1.0):
                workers, _ = await running_statuses(self._broker)
        except (RigflowError, TimeoutError):
            return
        self.known = [
            peer
            for worker in workers
            if worker["worker"] != self._name and worker["state"] in WORKS and (peer := _peer(worker)) is not None
        ]
        self.seen_s = time.monotonic()


def _peer(worker: Mapping[str, object]) -> Peer | None:
    done, roles, stages = worker.get("done"), worker.get("roles"), worker.get("stages")
    if not isinstance(done, list) or not isinstance(roles, dict) or not isinstance(stages, list):
        return None
    known = {}
    for of in done:
        pipeline, stage, message_s = of["pipeline"], of["stage"], float(of.get("message_s", 0.0))
        role = roles.get(pipeline)
        takes = stage in role["takes"] if role is not None else runs_stage(stages, stage) or "all" in stages
        if message_s > 0.0 and takes:
            known[str(pipeline), str(stage)] = message_s
    return Peer(str(worker["worker"]), worker["state"] == "idle", known)

"""Admission by predicted seconds: a publisher waits while the first queue of its pipeline holds too much work."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.broker import Broker
from pipelines.status import running_statuses
from schemas.rig import runs_stage

LOOK_S = 0.5  # between two looks at a queue that holds too much
_EACH = 2  # messages that every worker may have, however long they take
MOST_AT_ONCE = 64  # segments that are sent without another look


def messages_per_s(workers: Sequence[Mapping[str, Any]], pipeline: str, stage: str) -> tuple[float, int]:
    """Messages of a queue that workers do in a second together, by what each measured, and how many these are.

    0: none has measured any yet.
    """
    measured = list(_measured(workers, pipeline, stage))
    return sum(1.0 / message_s for message_s, _ in measured), len(measured)


def bytes_per_s(workers: Sequence[Mapping[str, Any]], pipeline: str, stage: str) -> float:
    """Bytes of a queue that workers do in a second together, by what each measured: long segments are large messages.

    0: none has measured any yet.
    """
    return sum(message_bytes / message_s for message_s, message_bytes in _measured(workers, pipeline, stage))


def _measured(workers: Sequence[Mapping[str, Any]], pipeline: str, stage: str) -> Iterator[tuple[float, float]]:
    """Seconds and bytes of a message, as measured by each worker that takes from a queue."""
    for worker in workers:
        role = worker.get("roles", {}).get(pipeline)
        takes = stage in role["takes"] if role is not None else runs_stage(worker["stages"], stage)
        for of in worker["done"]:
            message_s = float(of.get("message_s", 0.0))
            if takes and (of["pipeline"], of["stage"]) == (pipeline, stage) and message_s > 0.0:
                yield message_s, float(of.get("message_bytes", 0.0))


class Admission:
    """Room in the first queue of a pipeline, in predicted seconds of its workers: at most the setting `queue_s`."""

    def __init__(self, broker: Broker, pipeline: str, stage: str, consumer: str) -> None:
        self._broker = broker
        self._pipeline, self._stage = pipeline, stage
        self._consumer = f"{broker.names.work_stream(pipeline, stage)}.{consumer}"
        self._free = 0  # segments that may be sent before the next look

    async def room(self) -> None:
        """Wait until another segment may be sent. Raises BrokerError."""
        if not self._broker.settings.queue_s:
            return
        while self._free <= 0:
            self._free = await self._segments()
            if self._free <= 0:
                await asyncio.sleep(LOOK_S)
        self._free -= 1

    async def _segments(self) -> int:
        """How many more segments there is time for; there is always some for each worker."""
        workers, _ = await running_statuses(self._broker)
        rate, count = messages_per_s(workers, self._pipeline, self._stage)
        if not rate:  # nothing is predicted before workers have done some
            return 1
        info = await self._broker.api(f"CONSUMER.INFO.{self._consumer}")
        held = int(info["num_pending"]) + int(info["num_ack_pending"])
        most = max(_EACH * count, int(self._broker.settings.queue_s * rate))
        return min(MOST_AT_ONCE, most - held)

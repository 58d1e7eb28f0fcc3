"""The work of `rigflow jobs wait`: a line for each job as it ends, also for one that nothing can complete any more."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress

from cli.answers import Answer
from cli.text import warn
from pipelines.broker import Broker
from pipelines.job_progress import follow_progress
from pipelines.job_records import find_manifest
from pipelines.lost_jobs import LOST_S, why_lost
from schemas.errors import ExitCode, RigflowError
from schemas.jobs import JobState, Manifest
from workers.waits import explained

Line = Callable[[Manifest], str]


async def wait_for_jobs(
    broker: Broker, manifests: Sequence[Manifest], timeout_s: float | None, line: Line, answer: Answer
) -> ExitCode:
    """Wait until jobs are over, and say how each ended by its `line`. Raises BrokerError.

    Returns OK if all are done; where the broker lost messages of all of them, the code of that; else SOME_FAILED.
    """
    waiting = _Waiting(broker, manifests, line, answer)
    try:
        async with asyncio.timeout(timeout_s):
            await waiting.until_ended()
    except TimeoutError:
        for manifest in waiting.left:
            answer(f"{manifest.job.id}: not over within {timeout_s:g} s", **manifest.model_dump(mode="json"))
        return ExitCode.SOME_FAILED
    codes = set(waiting.ended.values())
    return codes.pop() if len(codes) == 1 else ExitCode.SOME_FAILED


class _Waiting:
    """Jobs that are waited for; `ended` has the exit code of each that is over, or lost."""

    def __init__(self, broker: Broker, manifests: Sequence[Manifest], line: Line, answer: Answer) -> None:
        self._broker, self._line, self._answer = broker, line, answer
        self._manifests = {manifest.job.id: manifest for manifest in manifests}
        self.ended: dict[str, ExitCode] = {}
        self._all_ended = asyncio.Event()
        self._has_moved = False

    @property
    def left(self) -> list[Manifest]:
        """Those that are not over, as they were at first."""
        return [manifest for job, manifest in self._manifests.items() if job not in self.ended]

    async def until_ended(self) -> None:
        for manifest in self._manifests.values():
            self._note(manifest)
        if not self.left:
            return
        waiting = explained(self._broker, warn, lambda: [manifest.job for manifest in self.left])
        async with waiting as moved, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow(moved)), group.create_task(self._look_for_lost())]
            await self._all_ended.wait()
            for task in tasks:
                task.cancel()

    async def _follow(self, moved: Callable[[], None]) -> None:
        async with aclosing(follow_progress(self._broker, self.left)) as following:
            async for manifest in following:
                self._has_moved = True
                moved()
                self._note(manifest)

    def _note(self, manifest: Manifest) -> None:
        if manifest.state.ended:
            code = ExitCode.OK if manifest.state is JobState.DONE else ExitCode.SOME_FAILED
            self._end(manifest, code, self._line(manifest))

    def _end(self, manifest: Manifest, code: ExitCode, text: str) -> None:
        if manifest.job.id not in self.ended:
            self.ended[manifest.job.id] = code
            self._answer(text, **manifest.model_dump(mode="json"))
        if not self.left:
            self._all_ended.set()

    async def _look_for_lost(self) -> None:
        """End the wait for jobs that nothing completes unless they are published again."""
        while True:
            self._has_moved = False
            await asyncio.sleep(LOST_S)
            if self._has_moved:
                continue
            with suppress(RigflowError):  # the broker is away: look again later
                for known in self.left:
                    manifest = await self._now(known)
                    if manifest is None or manifest.state.ended:
                        continue  # that is about to be noted
                    lost = await why_lost(self._broker, manifest)
                    # not cancelled or begun again meanwhile
                    if lost is not None and await self._now(known) == manifest:
                        self._end(manifest, lost.exit_code, f"{manifest.job.id}: {lost}")

    async def _now(self, known: Manifest) -> Manifest | None:
        return await find_manifest(self._broker, known.job.id, known.job.tenant)

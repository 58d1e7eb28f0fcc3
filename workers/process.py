"""One worker process: connects, learns the pipelines from the broker, works until told to stop.

Started as `python -m workers.process OPTIONS`, where OPTIONS is the json of `WorkerOptions`: no command line parser is
imported, for a fleet's start-up is its loss on short jobs.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from pipelines.broker import Broker
from pipelines.registry import watch_pipelines
from schemas.errors import ExitCode, RigflowError
from schemas.pipeline import Stage
from schemas.settings import Settings
from schemas.subjects import COLLECT, SPLIT
from workers.collect import CollectStage
from workers.lines import Lines
from workers.runner import Runner
from workers.split import SplitStage
from workers.undeliverable import Undeliverable

ALL_STAGES = ("split", "decode", "preprocess", "infer", "encode", "collect")
GRACE_S = 20.0  # to finish what is in hand after the first SIGTERM
STATUS_EVERY_S = 2.0
CONCURRENT = {SPLIT: 2, COLLECT: 32}  # these two mostly wait, so several run at once


class WorkerOptions(BaseModel):
    """What a worker process is told at its start."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: Settings
    stages: tuple[str, ...] = ALL_STAGES
    name: str = ""
    parent: int = 0


class Worker:
    """A worker: hosts the stages in `options.stages` (kinds or names) of every pipeline the broker knows."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._settings = options.settings
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._state = "starting"
        self._stopping: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()

    def hosts(self, stage: Stage) -> bool:
        """Whether this worker runs a stage."""
        return stage.kind in self._options.stages or stage.name in self._options.stages

    async def run(self) -> ExitCode:
        """Work until SIGTERM or SIGINT. Raises RigflowError when that is impossible."""
        broker = await Broker.connect(self._settings, name=self.name)
        lines = Lines(broker, self.hosts, _cache_folder(self._settings))
        runner = Runner(broker, self._settings, lines.get, self.name)
        self._stop_on_signals(runner)
        helpers = [asyncio.create_task(self._learn(broker, runner)), asyncio.create_task(self._report(broker, runner))]
        helpers.append(asyncio.create_task(runner.follow_cancelled()))
        serving = asyncio.create_task(runner.serve())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait([serving, stopped, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for ended in (serving, *helpers):
                if ended.done():
                    ended.result()
        finally:
            tasks: list[asyncio.Task[Any]] = [serving, stopped, *helpers, *self._stopping]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            lines.close()
            await broker.close()
        return ExitCode.OK

    async def _learn(self, broker: Broker, runner: Runner) -> None:
        """Host each pipeline as soon as the broker tells of it."""
        split, collect = SplitStage(broker, self._settings), CollectStage(broker, self._settings)
        undeliverable: Undeliverable | None = None
        try:
            async for spec in watch_pipelines(broker):
                await runner.intake.host(spec, [stage.name for stage in spec.stage if self.hosts(stage)])
                if SPLIT in self._options.stages:
                    await runner.intake.host_beside(spec, SPLIT, split.handle, CONCURRENT[SPLIT])
                if COLLECT in self._options.stages:
                    await runner.intake.host_beside(spec, COLLECT, collect.handle, CONCURRENT[COLLECT])
                    if undeliverable is None:
                        undeliverable = Undeliverable(broker, self.name)
                        await undeliverable.open()
        finally:
            if undeliverable is not None:
                await undeliverable.close()

    async def _report(self, broker: Broker, runner: Runner) -> None:
        """Put this worker's status into KV; it fades there when the worker is gone."""
        while True:
            status = {
                "worker": self.name,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "stages": list(self._options.stages),
                "state": self._state,
                "at_s": time.time(),
                "rss_bytes": _rss_bytes(),
                "in_hand": len(runner.hand.leases),
                **runner.counts,
            }
            with contextlib.suppress(RigflowError):
                await broker.put(broker.names.rigs, self.name, json.dumps(status).encode())
            self._state = "working" if runner.hand.leases else "idle"
            await asyncio.sleep(STATUS_EVERY_S)

    def _stop_on_signals(self, runner: Runner) -> None:
        """First signal: finish what is in hand. Second: hand it back at once."""

        async def stop(grace_s: float) -> None:
            await runner.stop(grace_s)
            self._stopped.set()

        def on_signal() -> None:
            self._state = "draining"
            self._stopping.append(asyncio.create_task(stop(0.0 if self._stopping else GRACE_S)))

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _cache_folder(settings: Settings) -> Path:
    if settings.cache:
        return Path(settings.cache)
    return Path.home() / ".cache" / "rigflow"


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, even by kill -9 (Linux)."""
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we asked
            os._exit(ExitCode.OK)


def work(options: WorkerOptions) -> NoReturn:
    """Be a worker until told to stop; ends the process with the worker's exit code."""
    import uvloop

    try:
        code = uvloop.run(Worker(options).run())
    except RigflowError as error:
        print(f"rigflow worker: {error}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    os._exit(code)  # a computing thread stuck in native code must not keep the process


def main() -> None:
    """Entry point of a worker process."""
    options = WorkerOptions.model_validate_json(sys.argv[1])
    _die_with(options.parent)
    work(options)


if __name__ == "__main__":
    main()

"""One worker process: connects, learns the pipelines from the broker, works until told to stop."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from engines.device import open_device
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.registry import watch_pipelines
from schemas.errors import ExitCode, RigflowError
from schemas.pipeline import PipelineSpec, Stage
from schemas.settings import Settings
from schemas.subjects import COLLECT, SPLIT
from workers.collect import CollectStage
from workers.failures import Failures
from workers.lines import Lines, for_each
from workers.reporter import Reporter
from workers.runner import Runner
from workers.split import SplitStage
from workers.telemetry import Event, set_up_logging, tell

ALL_STAGES = ("split", "decode", "preprocess", "infer", "encode", "collect")
CONCURRENT = {SPLIT: 2, COLLECT: 32}  # these two mostly wait, so several run at once


class WorkerOptions(BaseModel):
    """What a worker process is told at its start.

    `rig` and `device` are for its status. `beats` is the file descriptor of the socket on which its supervisor
    listens, `scratch` its folder for temporary files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: Settings
    stages: tuple[str, ...] = ALL_STAGES
    name: str = ""
    rig: str = ""
    device: str = "cpu"
    scratch: str = ""
    beats: int = -1


class Worker:
    """A worker: hosts the stages in `options.stages` (kinds or names) of every pipeline the broker knows."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._settings = options.settings
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._stopping: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()

    def hosts(self, stage: Stage) -> bool:
        """Whether this worker runs a stage."""
        return stage.kind in self._options.stages or stage.name in self._options.stages

    async def run(self) -> ExitCode:
        """Work until SIGTERM or SIGINT. Raises RigflowError when that is impossible."""
        broker = await Broker.connect(self._settings, name=self.name)
        cache = self._settings.cache_folder
        device = await asyncio.to_thread(open_device, self._options.device, self._settings, cache)
        lines = Lines(broker, self.hosts, cache, device)
        attempts = Attempts(broker, self.name, socket.gethostname(), self._options.device)
        failures = Failures(broker, attempts, self.name)
        runner = Runner(broker, self._settings, lines.get, failures, device)
        reporter = Reporter(self._options, self.name, broker, runner, lines, device)
        runner.on_suspect = reporter.warn
        self._stop_on_signals(runner, reporter)
        beside = [
            self._learn(broker, runner, lines, failures),
            lines.warm_up(),
            runner.follow_cancelled(),
            reporter.to_fleet(),
        ]
        if self._options.beats >= 0:
            beside.append(reporter.to_supervisor())
        helpers = [asyncio.create_task(each) for each in beside]
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
            await attempts.store_begun((), surely=True)
            await broker.close()
        return ExitCode.OK

    async def _learn(self, broker: Broker, runner: Runner, lines: Lines, failures: Failures) -> None:
        """Host each pipeline the broker tells of, its computing stages as soon as its own engines answer.

        Work taken before would wait here while others could do it. Engines that do not work are hosted too: somebody
        has to tell the jobs.
        """
        split = SplitStage(broker, failures, runner.begin)
        collect = CollectStage(broker, failures)
        hosting = asyncio.Lock()  # revisions of a pipeline share its hops

        async def host(spec: PipelineSpec) -> None:
            async with hosting:
                if SPLIT in self._options.stages:
                    await runner.host_beside(spec, SPLIT, split, CONCURRENT[SPLIT])
                if COLLECT in self._options.stages:
                    await runner.host_beside(spec, COLLECT, collect, CONCURRENT[COLLECT])
            with contextlib.suppress(RigflowError):
                await lines.get(spec.revision)
            async with hosting:
                await runner.intake.host(spec, [stage.name for stage in spec.stage if self.hosts(stage)])

        await for_each(watch_pipelines(broker), host)

    def _stop_on_signals(self, runner: Runner, reporter: Reporter) -> None:
        """First signal: finish what is in hand. Second: hand it back at once."""

        async def stop(grace_s: float) -> None:
            await runner.stop(grace_s)
            self._stopped.set()

        def on_signal() -> None:
            reporter.draining = True
            grace_s = 0.0 if self._stopping else self._settings.stop_grace_s
            self._stopping.append(asyncio.create_task(stop(grace_s)))

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)


def work(options: WorkerOptions) -> NoReturn:
    """Be a worker until told to stop; ends the process with the worker's exit code."""
    import uvloop

    try:
        code = uvloop.run(Worker(options).run())
    except RigflowError as error:
        if options.rig:
            tell(Event("ended", str(error), logging.ERROR))
        else:
            print(f"rigflow worker: {error}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    os._exit(code)  # a computing thread stuck in native code must not keep the process


def start(options: WorkerOptions) -> NoReturn:
    """Be a worker of a supervisor, in a process of its own."""
    if options.scratch:
        tempfile.tempdir = options.scratch
    if options.rig:
        set_up_logging(rig=options.rig, worker=options.name)
    work(options)

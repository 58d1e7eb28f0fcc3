"""One worker process: connects, reads the pipelines from the broker, works until a signal stops it."""

import asyncio
import functools
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from engines import native
from engines.device import open_device
from engines.ports import Device
from engines.profiling.models import device_name
from pipelines.attempts import Attempts
from pipelines.broker import Broker
from pipelines.cancel_requests import carry_out_cancel_requests
from pipelines.sweep import sweep_regularly
from schemas.cards import Reason
from schemas.errors import ExitCode, RigflowError, format_error
from schemas.pipeline import Stage
from schemas.settings import LogFormat, LogLevel
from schemas.subjects import COLLECT
from workers.canaries import Canaries
from workers.card_guard import CardGuard
from workers.computing import ComputingThread
from workers.failures import Failures
from workers.forkserver import end_with_parent
from workers.hosting import Hosting
from workers.measured_again import measure_again
from workers.obedience import Obedience
from workers.options import WorkerOptions
from workers.pipeline_cache import PipelineCache
from workers.reporter import Reporter
from workers.roles import follow_roles
from workers.runner import Runner
from workers.stragglers import Stragglers
from workers.telemetry import Event, log_event, set_up_logging
from workers.trust import Trust

HELPER_PAUSE_S = 1.0


class Worker:
    """A worker: hosts the stages in `options.stages` (kinds or names) of every pipeline the broker knows."""

    def __init__(
        self,
        options: WorkerOptions,
        heartbeats: socket.socket | None = None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._on_connected = on_connected
        self._heartbeats = heartbeats
        self._settings = options.settings
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._stopping: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()

    def hosts(self, stage: Stage) -> bool:
        """Whether this worker runs a stage."""
        return self._options.hosts(stage.kind, stage.name)

    async def run(self) -> ExitCode:
        """Work until SIGTERM or SIGINT. Raises RigflowError when the worker cannot start or continue."""
        broker = await Broker.connect(self._settings, name=self.name)
        self._on_connected()
        cache = self._settings.cache_folder
        native.keep_in(cache)
        device = await asyncio.to_thread(open_device, self._options.device, self._settings, cache)
        computing, unsafe = ComputingThread(device), (self._options.quarantine, self._options.load_alone)
        pipelines = PipelineCache(broker, self.hosts, cache, device, computing, *unsafe)
        attempts = Attempts(broker, self.name, socket.gethostname(), self._options.device)
        failures = Failures(broker, attempts, self.name)
        await measure_again(broker, device)
        name = await asyncio.to_thread(device_name, device)
        uuid = name.id if device.gpu is not None else ""
        trust = Trust(uuid, self.name, broker.now_ms, self._options.rig, name.kind)
        runner = Runner(broker, self._settings, pipelines.get, failures, computing, device.concurrency, trust)
        runner.handoff.gpu_peers = self._options.gpu_peers
        reporter = Reporter(self._options, self.name, broker, runner, pipelines, device)
        runner.on_poison_candidate = pipelines.opener.on_loading = reporter.report_now
        pipelines.in_flight = lambda: runner.in_flight.revisions
        obedience = Obedience(broker, runner, self._options, self.name, pipelines.unload_idle)
        guard = self._guard(broker, runner, obedience, pipelines, device)
        self._stop_on_signals(runner, reporter, guard)
        await guard.open()
        loops = [*self._loops(broker, runner, pipelines, failures, reporter), obedience.follow, guard.run]
        loops.append(functools.partial(runner.costs.follow, broker, cache, device, pipelines.opener.tuning.chosen))
        helpers = [asyncio.create_task(_keep_running(each)) for each in loops]
        serving = asyncio.create_task(runner.serve())
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await _first_to_end(serving, stopped, *helpers)
        finally:
            tasks: list[asyncio.Task[Any]] = [serving, stopped, *helpers, *self._stopping]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pipelines.close()
            computing.close()
            await attempts.store_begun((), surely=True)
            await broker.close()
        return ExitCode.OK

    def _guard(
        self, broker: Broker, runner: Runner, obedience: Obedience, pipelines: PipelineCache, device: Device
    ) -> CardGuard:
        given = broker, device, runner.computing, runner.trust, runner.recent, lambda: pipelines.newest
        pipelines.on_failed_test = functools.partial(runner.trust.accuse, Reason.SELF_TEST)
        tick, ready = runner.heartbeats.tick, pipelines.first_warm_up
        canaries = Canaries(*given, pipelines.opener.tuning.chosen, self.name, tick, ready)
        return CardGuard(broker, runner, obedience, canaries, pipelines.reload)

    def _loops(
        self, broker: Broker, runner: Runner, pipelines: PipelineCache, failures: Failures, reporter: Reporter
    ) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs beside the work for as long as the worker does."""
        loops: list[Callable[[], Coroutine[Any, Any, None]]] = [
            Hosting(broker, self._options, runner, pipelines, failures).run,
            pipelines.warm_up,
            pipelines.unload_unused,
            functools.partial(runner.in_flight.follow, runner.cancelled),
            reporter.to_fleet,
            Stragglers(broker, self.name, runner.in_flight, runner.intake, runner.handoff).run,
        ]
        if self._options.auto:
            loops.append(functools.partial(follow_roles, broker, runner.intake.roles, reporter.device_name))
        if self._options.hosts(COLLECT):
            loops += [functools.partial(sweep_regularly, broker), functools.partial(carry_out_cancel_requests, broker)]
        if self._heartbeats is not None:
            loops.append(functools.partial(reporter.to_supervisor, self._heartbeats))
        return loops

    def _stop_on_signals(self, runner: Runner, reporter: Reporter, guard: CardGuard) -> None:
        """At the first signal finish the messages in flight, at the second hand them back at once."""

        async def stop(grace_s: float, at_once: bool) -> None:
            await runner.intake.close()
            if not at_once:
                await guard.leave()
            await runner.stop(grace_s)
            self._stopped.set()

        def on_signal() -> None:
            reporter.draining = True
            at_once = bool(self._stopping)
            grace_s = 0.0 if at_once else self._settings.stop_grace_s
            self._stopping.append(asyncio.create_task(stop(grace_s, at_once)))

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)


async def _first_to_end(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one of these tasks ends. Raises its error."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()


async def _keep_running(helper: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a helper task, and run it again after an unexpected error, so that bad data does not end the process.

    Raises RigflowError when the broker or the supervisor is gone.
    """
    while True:
        try:
            await helper()
            return
        except RigflowError:
            raise
        except Exception as error:
            log_event(Event("unexpected", f"a background task failed: {format_error(error)}", logging.ERROR))
        await asyncio.sleep(HELPER_PAUSE_S)


def work(
    options: WorkerOptions,
    heartbeats: socket.socket | None = None,
    on_connected: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Run a worker until a signal stops it; ends the process with the worker's exit code."""
    import uvloop

    limit_memory(options)
    try:
        code = uvloop.run(Worker(options, heartbeats, on_connected).run())
    except RigflowError as error:
        if options.rig:
            log_event(Event("ended", str(error), logging.ERROR))
        else:
            print(f"rigflow worker: {error}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    os._exit(code)  # a computing thread that is stuck in native code would keep the process alive


def start_worker(options: WorkerOptions, heartbeats: socket.socket | None) -> NoReturn:
    """Run a worker in a process that a supervisor started."""
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # which the fork server blocks
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # it ended before `end_with_parent` had effect
        os._exit(ExitCode.OK)
    if options.scratch:
        tempfile.tempdir = options.scratch
    settings = options.settings
    if options.rig:
        set_up_logging(settings, rig=options.rig, worker=options.name)
    elif settings.log_format is LogFormat.JSON or settings.log_level is LogLevel.DEBUG:  # asked for
        set_up_logging(settings, worker=options.name)
    work(options, heartbeats)


def limit_memory(options: WorkerOptions) -> None:
    """Make allocations beyond `worker_memory_bytes` fail, so that the kernel does not kill a process.

    Not for GPUs: their driver maps more memory than it uses, so only the supervisor checks those workers.
    """
    limit = options.settings.worker_memory_bytes
    if limit and options.device == "cpu" and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

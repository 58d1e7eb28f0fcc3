"""Hosts each pipeline that the broker knows, on the queues of each tenant that the operator lists."""

import asyncio

from engines.plugins import check_plugins
from pipelines.broker import Broker
from pipelines.registry import watch_pipelines
from pipelines.tenants import follow_tenants
from schemas.errors import PluginMissing
from schemas.pipeline import PipelineSpec
from schemas.subjects import COLLECT, SPLIT
from workers.collect import CollectHandler
from workers.failures import Failures
from workers.options import WorkerOptions
from workers.pipeline_cache import PipelineCache, for_each
from workers.runner import Runner
from workers.split import SplitHandler

CONCURRENT = {SPLIT: 64, COLLECT: 32}  # messages at a time: these two stages mostly wait (`MediaTurns`)


class Hosting:
    """Hosts a pipeline's computing stages only after its engines are loaded.

    Messages taken earlier would wait here while other workers could process them. A pipeline whose engines do not
    work is hosted too: its jobs fail with the reason. One that needs packages which are not here is not hosted.
    """

    def __init__(
        self, broker: Broker, options: WorkerOptions, runner: Runner, pipelines: PipelineCache, failures: Failures
    ) -> None:
        self._broker, self._options = broker, options
        self._runner, self._pipelines = runner, pipelines
        self._split = SplitHandler(broker, failures, runner.begin, runner.intake.io.withhold)
        self._collect = CollectHandler(broker, failures)
        self._lock = asyncio.Lock()  # revisions of a pipeline share its queues
        self._hosted: dict[str, PipelineSpec] = {}  # one revision of each name

    async def run(self) -> None:
        """Host what there is and what comes, until cancelled. Raises errors that are fatal to the process."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(for_each(watch_pipelines(self._broker), self._host))
                tasks.create_task(self._follow_tenants())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self._collect.close()

    async def _follow_tenants(self) -> None:
        """Take from the queues of the tenants that the operator lists, and leave those of the others."""
        async for _ in follow_tenants(self._broker):
            async with self._lock:
                await self._runner.intake.leave_tenants()
            await asyncio.gather(*map(self._host, list(self._hosted.values())))

    async def _host(self, spec: PipelineSpec) -> None:
        self._hosted[spec.name] = spec
        try:
            await asyncio.to_thread(check_plugins, spec)
        except PluginMissing:  # warm_up reports it
            return
        io_stages = self._runner.io_stages
        async with self._lock:
            for stage, handler in ((SPLIT, self._split), (COLLECT, self._collect)):
                if self._options.hosts(stage):
                    await io_stages.host(spec, stage, handler, CONCURRENT[stage])
        if not self._pipelines.superseded(spec):
            try:
                await self._pipelines.get(spec.revision)
            except PluginMissing:  # other workers take its work; warm_up reports it
                return
            except Exception:  # warm_up reports it
                pass
        if self._options.load_alone:  # so that a crash has one cause, no work may be in flight
            await self._pipelines.first_warm_up.wait()
        async with self._lock:
            hosted = [stage.name for stage in spec.stage if self._options.hosts(stage.kind, stage.name)]
            await self._runner.intake.host(spec, hosted)

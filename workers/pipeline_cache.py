"""Loads pipeline revisions for a worker, each once: spec, models and sessions, all through the broker."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from engines.beside import runs_on_host
from engines.plan import plan_pipeline
from engines.plugins import check_plugins, of_this_version
from engines.ports import Device, Session
from pipelines.broker import Broker
from pipelines.follow import follow_bucket
from pipelines.registry import hosted_names, load_pipeline
from pipelines.values import report_skipped
from schemas.errors import (
    Disposition,
    ModelError,
    PipelineError,
    PluginMissing,
    RigflowError,
    SelfTestFailed,
    format_error,
)
from schemas.pipeline import PipelineSpec
from workers.computing import ComputingThread
from workers.sessions import ModelPlace, SessionOpener
from workers.stages import Hosts, LoadedPipeline
from workers.telemetry import Event, log_event

T = TypeVar("T")
UNLOAD_EVERY_S = 5.0
CLOSE_S = 2.0  # most seconds that the end of a worker waits for its computing thread
EVICT_POLL_S = 0.05  # between checks whether messages still need all loaded models


class PipelineCache:
    """Loads and keeps pipelines by revision, and sessions by model and place.

    Different pipelines load at the same time, so that a slow one does not delay the others. All callers for the same
    one wait for the same attempt, and get the same error. `quarantine`, `load_alone`: see `SessionOpener`. `in_flight`
    returns the revisions that messages need: these stay loaded.
    """

    def __init__(
        self,
        broker: Broker,
        hosts: Hosts,
        cache: Path,
        device: Device,
        computing: ComputingThread,
        quarantine: Mapping[str, str],
        load_alone: bool,
    ) -> None:
        self._broker = broker
        self._device = device
        self._settings = broker.settings
        self._hosts = hosts
        self.opener = SessionOpener(broker, cache, device, computing, quarantine, load_alone)
        self._pipelines: dict[str, LoadedPipeline] = {}
        self._sessions: dict[ModelPlace, Session] = {}
        self._places: dict[str, set[ModelPlace]] = {}  # revision -> the models that it has here
        self._loading: dict[str, asyncio.Task[Any]] = {}
        self.first_warm_up = asyncio.Event()  # set when it is over, failures included
        self._names: dict[str, str] = {}  # name -> its newest revision, or a variant where there is none
        self._used_s: dict[str, float] = {}  # when a revision was asked for last
        self._cold = {"": "the list of pipelines is not read from the broker yet"}
        self.declined: dict[str, str] = {}  # pipelines that this worker takes no work of, and why
        self.in_flight: Callable[[], set[str]] = set
        self.on_failed_test: Callable[[str, str], None] = lambda _why, _revision: None
        self._sizes: dict[str, int] = {}  # of models, in bytes
        self._making: dict[str, set[ModelPlace]] = {}  # revisions that are being loaded, and the models of each

    @property
    def starting(self) -> bool:
        """Whether engines are still to be loaded for the first time."""
        return "" in self._cold

    @property
    def cold(self) -> str:
        """Why not every engine of the fleet's pipelines has finished its warm-up; empty when all have."""
        return "; ".join(self._cold.values())

    @property
    def loaded(self) -> int:
        """How many models are loaded."""
        return len(self._sessions)

    @property
    def newest(self) -> list[LoadedPipeline]:
        """The pipelines that are loaded, in their newest revisions."""
        return [each for each in self._pipelines.values() if not self.superseded(each.spec)]

    @property
    def failed(self) -> int:
        """How many pipelines have engines that cannot be loaded here."""
        return sum(reason != _being_loaded(name) for name, reason in self._cold.items() if name)

    def superseded(self, spec: PipelineSpec) -> bool:
        """Whether a pipeline has a newer revision; older ones are loaded only when a job needs them."""
        return self._names.get(spec.name, spec.revision) != spec.revision

    async def warm_up(self) -> None:
        """Load all pipelines before jobs need them: now, and whenever one is published."""
        self._names = await hosted_names(self._broker)
        await asyncio.gather(*(self._warm(name, revision) for name, revision in self._names.items()))
        self._cold.pop("", None)
        self.first_warm_up.set()

        async def warm(news: tuple[str, bytes]) -> None:
            name, revision = news[0].removeprefix("name."), news[1].decode(errors="replace")
            if self._names.get(name) != revision:  # the watch begins with known entries
                self._names[name] = revision
                await self._warm(name, revision)

        await for_each(follow_bucket(self._broker, self._broker.names.pipelines, "name.*"), warm)

    async def _warm(self, name: str, revision: str) -> None:
        """Load one pipeline. If an engine does not work, that is logged, and its jobs fail with the same error."""
        self._cold[name] = _being_loaded(name)
        self.declined.pop(name, None)
        try:
            await self.get(revision)
        except PluginMissing as error:  # this worker is ready for all other pipelines
            self._cold.pop(name, None)
            self.declined[name] = str(error)
            log_event(Event("declined", str(error), facts={"pipeline": name}))
        except PipelineError as error:  # no worker of this version can run it, so this one still counts as ready
            self._cold.pop(name, None)
            report_skipped(f"pipeline {name}", str(error))
        except Exception as error:
            _raise_if_fatal(error)
            if isinstance(error, SelfTestFailed):
                self.on_failed_test(error.what, revision)
            self._cold[name] = f"{name}: {format_error(error)}"
            log_event(Event("unready", f"pipeline {self._cold[name]}", facts={"why": format_error(error)}))
        else:
            self._cold.pop(name, None)

    async def get(self, revision: str) -> LoadedPipeline:
        """The loaded pipeline of a revision. Raises PipelineError, ModelError or BrokerError."""
        self._used_s[revision] = time.monotonic()
        if revision not in self._pipelines:
            pipeline = await self._once(revision, lambda: self._load(revision))
        else:
            pipeline = self._pipelines[revision]
        if self._names.get(pipeline.spec.name) == revision:
            self._cold.pop(pipeline.spec.name, None)
        return pipeline

    async def unload_unused(self) -> None:
        """Unload withdrawn pipelines, and revisions that are not the newest and that no message needs.

        A revision stays for `work_deadline_s` after its last use: no step that uses its sessions takes longer.
        """
        while True:
            await asyncio.sleep(UNLOAD_EVERY_S)
            known = set(self._names)
            try:
                withdrawn = known - (await hosted_names(self._broker)).keys()
            except RigflowError:  # the broker is away
                continue
            for name in withdrawn:
                self._names.pop(name, None)
                self._cold.pop(name, None)
                self.declined.pop(name, None)
            oldest_s = time.monotonic() - self._settings.work_deadline_s
            needed = {*self._names.values(), *self.in_flight()}
            await self._unload(
                [revision for revision in self._pipelines.keys() - needed if self._used_s[revision] < oldest_s]
            )

    async def reload(self) -> None:
        """Unload what no message needs, and load the newest revisions, which tests their engines. Raises as `get`."""
        await self.unload_idle()
        for each in await asyncio.gather(*map(self.get, self._names.values()), return_exceptions=True):
            elsewhere = isinstance(each, (PluginMissing, PipelineError, ModelError))
            if isinstance(each, SelfTestFailed) or (isinstance(each, BaseException) and not elsewhere):
                raise each

    async def unload_idle(self) -> None:
        """Unload all that no message needs; it is loaded again when one does."""
        await self._unload(list(self._pipelines.keys() - self.in_flight()))

    async def _unload(self, revisions: Sequence[str]) -> None:
        """Unload these revisions, and close the sessions that no other one uses."""
        for revision in revisions:
            del self._pipelines[revision], self._used_s[revision], self._places[revision]
        unused = self._sessions.keys() - set[ModelPlace]().union(*self._places.values(), *self._making.values())
        closing = [self._sessions.pop(place) for place in unused]  # all at once: a load meanwhile makes its own
        for identity in {place.identity for place in unused} - {place.identity for place in self._sessions}:
            self.opener.models.release(identity)
        for session in closing:
            await self.opener.close(session)

    async def _evict_models(self, spec: PipelineSpec, models: set[ModelPlace]) -> None:
        """Unload the least recently used revisions that no message needs, until these models fit beside the others.

        Waits while messages need all loaded revisions. Raises ModelError when the models alone are too large.
        """
        for identity in {place.identity for place in models} - self._sizes.keys():
            self._sizes[identity] = await self.opener.models.nbytes(identity)
        limit = self._settings.models_bytes
        if (total := self._bytes_of(models)) > limit:
            what = f"the models of pipeline {spec.name} have {total:,} bytes, and this worker loads {limit:,} at most"
            raise ModelError(what, "raise the setting models_bytes")
        while self._bytes_of(models.union(self._sessions, *self._making.values())) > limit:
            idle = self._pipelines.keys() - self.in_flight()
            if idle:
                await self._unload([min(idle, key=self._used_s.__getitem__)])
            else:
                await asyncio.sleep(EVICT_POLL_S)

    def _bytes_of(self, models: set[ModelPlace]) -> int:
        return sum(self._sizes[place.identity] for place in models)

    async def _once(self, key: str, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `load`, or of a load of the same key that runs already.

        If a load that ran already fails, this one is tried: the other may have begun before its model was stored.
        """
        while key in self._loading:
            try:
                known: T = await asyncio.shield(self._loading[key])
                return known
            except RigflowError:
                await asyncio.sleep(0)  # so that its done callback removes it from `_loading`
        loading = self._loading[key] = asyncio.create_task(load())
        loading.add_done_callback(lambda _: self._loading.pop(key))
        loaded: T = await asyncio.shield(loading)
        return loaded

    async def _load(self, revision: str) -> LoadedPipeline:
        spec = await load_pipeline(self._broker, revision)
        await asyncio.to_thread(check_plugins, spec)
        cards = {name: await self.opener.models.card(spec.models[name]) for name in spec.models}
        try:
            plan = await asyncio.to_thread(plan_pipeline, spec, cards)  # which imports operators, heads and formats
        except PipelineError as error:
            raise of_this_version(error) from error
        models: dict[str, ModelPlace] = {}  # by stage
        for stage in spec.operators:
            if stage.model is not None and self._hosts(stage):
                on_host = self._device.gpu is not None and runs_on_host(plan.operators[stage.name])
                models[stage.name] = ModelPlace(spec.models[stage.model], on_host)
        await self._evict_models(spec, set(models.values()))
        self._making[revision] = set(models.values())
        try:
            for place in models.values():
                if place not in self._sessions:
                    self._sessions[place] = await self._once(str(place), functools.partial(self.opener.open, place))
            sessions = {name: self._sessions[place] for name, place in models.items()}
            self._places[revision] = self._making[revision]
            pipeline = self._pipelines[revision] = LoadedPipeline(plan, self._hosts, sessions, self._device)
            return pipeline
        finally:
            del self._making[revision]

    async def close(self) -> None:
        """Close all sessions. Threads that load or compute for long are not waited for, because the process ends."""
        for loading in self._loading.values():
            loading.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for session in self._sessions.values():
                    await self.opener.close(session)
        self.opener.models.close()


async def for_each(things: AsyncIterable[T], do: Callable[[T], Coroutine[Any, Any, None]]) -> None:
    """Call `do` for each thing as it comes, all at the same time. A failure is logged and leaves the others running.

    Raises errors that are fatal to the process.
    """

    async def attempt(thing: T) -> None:
        try:
            await do(thing)
        except Exception as error:
            _raise_if_fatal(error)
            log_event(Event("skipped", f"one entry is skipped: {format_error(error)}"))

    try:
        async with asyncio.TaskGroup() as tasks:
            async for thing in things:
                tasks.create_task(attempt(thing))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _raise_if_fatal(error: Exception) -> None:
    if isinstance(error, RigflowError) and error.disposition is Disposition.FATAL:
        raise error


def _being_loaded(name: str) -> str:
    return f"{name}: its engines are being loaded"

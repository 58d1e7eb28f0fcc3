"""Has a worker compute canaries between its parts, and judges its group of cards by the answers of all.

A round is one canary of each pipeline that is loaded here. Between rounds are `canary_minutes` and a hundred times what
the last one took; less where the inputs that may have to be done again fill half of their space.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from engines.backends.choice import backend_of
from engines.canary import Canary, canary_of, group_of, versions
from engines.ports import Compiler, Device
from engines.profiling.host_name import processor_flags
from engines.profiling.models import device_name
from pipelines.broker import Broker
from pipelines.cards import canaries, card_record, forget_canary, out_of_work, put_canary, quarantine
from placement.canaries import Answers, judge
from schemas.cards import CanaryRecord, Reason
from schemas.errors import Disposition, MediaError, PipelineError, RigflowError, format_error
from schemas.model_profile import ComputeOptions
from workers.canary_run import CanaryFailed, TooLong, compute, covered
from workers.computing import ComputingThread
from workers.recent import Recent
from workers.stages import LoadedPipeline
from workers.telemetry import Event, log_event
from workers.trust import Trust, setup_of

FIRST_S = 60.0  # after the pipelines of a worker are loaded, or `canary_minutes` if that is less
SHARE = 100  # a worker works so many times as long as its canaries take
MOST_S = 5.0  # of one canary
MOST_FAILURES = 3  # in a row, of a pipeline whose canary takes longer or has never ended well here: then it has none
ANNOUNCED_S = 300.0  # a card that was to answer and did not for so long has no say
FORGET_S = 7 * 86400.0  # answers of groups that a card does not belong to any more
Tick = Callable[[], None]


class Canaries:
    """`run` in a task; `round` computes all canaries now. `loaded` returns the pipelines that are loaded here."""

    def __init__(
        self,
        broker: Broker,
        device: Device,
        computing: ComputingThread,
        trust: Trust,
        recent: Recent,
        loaded: Callable[[], list[LoadedPipeline]],
        chosen: Mapping[str, ComputeOptions],
        worker: str,
        tick: Tick,
        ready: asyncio.Event,
    ) -> None:
        """`chosen`: options of models by their identity. `ready` is set once the pipelines are loaded."""
        self._broker, self._device, self._computing = broker, device, computing
        self._trust, self._recent, self._loaded = trust, recent, loaded
        self._chosen, self._worker, self._tick = chosen, worker, tick
        self._every_s = 60 * broker.settings.canary_minutes
        self._drawn: dict[str, Canary | None] = {}
        self._worked: set[str] = set()  # revisions whose canary ended well in this process
        self._failures: Counter[str] = Counter()  # in a row, by revision
        self._mine: dict[str, CanaryRecord] = {}  # by group
        self._ready, self._shared = ready, tuple[object, ...]()
        self._opened = False
        self._answered: set[str] = set()  # the groups of the last round
        self._took_s = 0.0  # by the canaries of a round
        self.lock = asyncio.Lock()  # held during a round, and while a verdict is carried out
        self._process = secrets.token_hex(8)

    async def run(self) -> None:
        """Compute canaries until cancelled."""
        if not self._every_s:
            return
        await self._ready.wait()
        async with self.lock:
            await self.open()
        pause_s = min(FIRST_S, self._every_s)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._recent.full.wait()
            pause_s, self._took_s = self._every_s, 0.0
            async with self.lock:
                await self._regular_round()
            self._recent.full.clear()
            await asyncio.sleep(SHARE * self._took_s)

    async def open(self) -> None:
        """Wait until the pipelines are loaded, and take the answers of an earlier process, once."""
        await self._ready.wait()
        if not self._opened:
            await self._recall()
        self._opened = True

    async def _regular_round(self) -> None:
        if self._trust.quarantined:
            return
        try:
            await self._broker.read_clock()
            if why := await self.round():
                self._trust.accuse(Reason.CANARY, why)
        except RigflowError as error:  # the broker is away, or roles.conf is of an earlier version
            if error.disposition is Disposition.FATAL:
                raise
            log_event(Event("canary-failed", f"canaries could not be judged: {error}"))

    async def _recall(self) -> None:
        """Take the answers of an earlier process, and have others of the group wait for the first one of this card."""
        with suppress(RigflowError):
            known = await canaries(self._broker)
            mine = [each for each in known if each.card == self._trust.card]
            self._mine = {each.group: each for each in mine if not each.process}
            for pipeline in self._loaded():
                canary = await self._canary(pipeline)
                if canary is not None and (group := await self._group(pipeline, canary)) not in self._mine:
                    await put_canary(self._broker, self._new(group, pipeline))
            await self._forget(known)

    async def _forget(self, known: Iterable[CanaryRecord]) -> None:
        """Delete what nothing is compared with any more: earlier processes of this worker, and cards that have gone."""
        out = await out_of_work(self._broker)
        oldest_s = self._broker.now_s() - FORGET_S
        for each in known:
            own = (each.card, each.worker) == (self._trust.card, self._worker)
            ended = own and each.process not in ("", self._process)
            if ended or (each.at_s < oldest_s and each.card not in out and each.group not in self._mine):
                await forget_canary(self._broker, each)

    async def round(self) -> str:
        """Compute the canary of each pipeline, and judge. Why this card is wrong; empty if it is not.

        After a verdict that comes meanwhile it certifies nothing: what that puts in doubt is done again. Raises
        BrokerError, CanaryFailed, and what is fatal to the process.
        """
        self._recent.begin()
        since_ms, before = self._trust.begin(), self._trust.record
        groups: set[str] = set()
        for pipeline in self._loaded():
            if (group := await self._one(pipeline)) is None:
                continue
            groups.add(group)
            if why := await self._judge(pipeline.spec.name, group):
                self._trust.canaries["wrong"] += 1
                return why
            self._trust.canaries["good"] += 1
        self._answered = groups
        if await card_record(self._broker, self._trust.card) != before:
            return ""
        self._trust.good(since_ms)
        self._recent.good()
        for group in groups:
            self._mine[group] = self._mine[group].model_copy(update={"good_ms": since_ms})
            await put_canary(self._broker, self._mine[group])
        for group in self._mine.keys() - groups:
            if self._mine[group].process or self._mine[group].at_s < self._broker.now_s() - FORGET_S:
                await forget_canary(self._broker, self._mine.pop(group))
        return ""

    async def _one(self, pipeline: LoadedPipeline) -> str | None:
        """Compute the canary of a pipeline and store the answer; its group, None if it has no canary."""
        revision, canary = pipeline.spec.revision, await self._canary(pipeline)
        if canary is None or pipeline not in self._loaded():  # it was unloaded since the round began
            return None
        self._tick()
        step = pipeline.spec.name, "canary"  # so that a GPU that hangs in it is seen
        try:
            digest, took_s = await self._computing.run_step(*step, compute, pipeline, canary, self._tick, MOST_S)
        except Exception as error:
            self._on_failure(pipeline, error)
            return None
        finally:
            self._tick()
        self._worked.add(revision)
        self._failures.pop(revision, None)
        self._took_s += took_s
        group = await self._group(pipeline, canary)
        known = self._mine.get(group) or self._new(group, pipeline)
        update = {"first": known.first or digest, "last": digest, "at_s": self._broker.now_s(), "took_s": took_s}
        update |= {"good_ms": self._trust.good_ms, "setup": setup_of(self._broker.settings)}
        self._mine[group] = known.model_copy(update=update)
        await put_canary(self._broker, self._mine[group])
        return group

    def _on_failure(self, pipeline: LoadedPipeline, error: Exception) -> None:
        """Give the canary of a pipeline up if its media do not suit it.

        Raises CanaryFailed if they do, as far as is known, and what is fatal to the process.
        """
        if isinstance(error, RigflowError) and error.disposition is Disposition.FATAL:
            raise error
        name, revision = pipeline.spec.name, pipeline.spec.revision
        self._trust.canaries["failed"] += 1
        self._failures[revision] += 1
        often = self._failures[revision] >= MOST_FAILURES
        fits = revision in self._worked or not (often or isinstance(error, (PipelineError, MediaError)))
        if fits and not (often and isinstance(error, TooLong)):
            raise CanaryFailed(f"the canary of {name} failed: {format_error(error)}") from error
        self._drawn[revision] = None
        text = f"pipeline {name} has no canary here: {format_error(error)}"
        log_event(Event("canary-failed", text, logging.INFO, {"pipeline": name}))

    async def _canary(self, pipeline: LoadedPipeline) -> Canary | None:
        revision = pipeline.spec.revision
        if revision not in self._drawn:
            self._drawn[revision] = await asyncio.to_thread(canary_of, pipeline.spec)
        return self._drawn[revision]

    def _new(self, group: str, pipeline: LoadedPipeline) -> CanaryRecord:
        return CanaryRecord(
            card=self._trust.card,
            group=group,
            worker=self._worker,
            kind=self._trust.kind,
            pipeline=pipeline.spec.name,
            revision=pipeline.spec.revision,
            good_ms=self._trust.good_ms,
            at_s=self._broker.now_s(),
            process=self._process if self._alone(pipeline) else "",
        )

    def _alone(self, pipeline: LoadedPipeline) -> bool:
        return bool(pipeline.models) and self._device.gpu is not None

    async def _group(self, pipeline: LoadedPipeline, canary: Canary) -> str:
        """What cards must share to give equal bits.

        A card with engines of its own is alone. So is each load of a pipeline that infers on a GPU: cuDNN chooses
        algorithms by trying them, and another session may choose others, whose last bits differ.
        """
        if not self._shared:
            name = await asyncio.to_thread(device_name, self._device)
            releases = await asyncio.to_thread(versions)
            self._shared = name.kind, name.driver, processor_flags(), releases
        settings, models = self._broker.settings, pipeline.models
        chosen = [settings.backend, settings.precision, settings.tf32, settings.decoder, settings.encoder]
        chosen += [self._chosen.get(model.identity) for model in models]
        own = any(isinstance(backend_of(model, settings), Compiler) for model in models)
        stages, alone = covered(pipeline), self._trust.card if own else ""
        if self._alone(pipeline):
            alone = f"{self._process} {pipeline.load}"
        return group_of(pipeline.spec.revision, stages, canary.sha256, self._shared, chosen, alone)

    async def _judge(self, pipeline: str, group: str) -> str:
        """Judge the group, and quarantine the cards that are wrong; why this card is, if it is."""
        out = await out_of_work(self._broker) - {self._trust.card}
        announced_s = self._broker.now_s() - ANNOUNCED_S - self._every_s  # cards that did not answer by then have gone
        answered_s = announced_s - 2 * self._every_s - SHARE * MOST_S * len(self._loaded())  # after a few rounds, too
        all_ = [each for each in await canaries(self._broker, group=group) if each.card not in out]
        known = {each.card: each for each in all_ if each.at_s > (answered_s if each.last else announced_s)}
        verdict = judge({card: Answers(each.first, each.last) for card, each in known.items()})
        if verdict.undecided:
            cards = ", ".join(verdict.undecided)
            text = f"the canary of {pipeline} has another answer on each of {cards}: a third card has to decide"
            log_event(Event("canary-undecided", text))
        for card, how in verdict.wrong.items():
            why = f"it answered the canary of {pipeline} {how}"
            if card == self._trust.card:
                return why
            await quarantine(self._broker, card, Reason.CANARY, why, known[card].good_ms)
        return ""

    async def passed(self) -> None:
        """The card passed a check: its answers are its first ones now, others are forgotten. Raises BrokerError."""
        for group, record in list(self._mine.items()):
            if group in self._answered:
                self._mine[group] = record.model_copy(update={"first": record.last})
                await put_canary(self._broker, self._mine[group])
            else:
                await forget_canary(self._broker, self._mine.pop(group))

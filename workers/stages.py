"""The stages of one pipeline revision from decode to encode. Engines do the computing."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from engines.beside import Prepares, runs_on_host
from engines.continuous import Continuous, Running, Stepping
from engines.inference.session import Overlapping
from engines.inference.work import Begun
from engines.outputs.format import load_format
from engines.part import Part, Tick, not_finite, pack_arrays
from engines.pictures import HostPictures, resized_part
from engines.plan import Plan
from engines.ports import BatchCounts, Device, Filling, RowKind, Session
from schemas.errors import RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import EncodeStage, OperatorStage, PipelineSpec, Stage
from schemas.results import Result
from schemas.segments import Segment

Hosts = Callable[[Stage], bool]
_STEP_S, _MOST_BATCHES = 0.05, 8  # of a step: a GPU computes nothing between two steps, and others wait for its end
_LOADS = itertools.count()  # of a process: each loaded pipeline has its own number


class LoadedPipeline:
    """One pipeline revision in one worker: its plan, the models' sessions and the stages this worker hosts.

    The pictures that models and resize stages want are made of each frame as it leaves the decoder, so full-size
    pictures never pile up (law 6); only a worker that decodes without hosting a resize stage sends it raw frames.
    """

    def __init__(
        self,
        plan: Plan,
        hosts: Hosts,
        sessions: Mapping[str, Session],
        device: Device,
    ) -> None:
        """`sessions` are those of the stages hosted here, by name. Raises PipelineError as `load_format` does."""
        self.spec = spec = plan.spec
        self.plan = plan
        self.load = next(_LOADS)
        self._device = device
        self.hosted = _hosted(spec, plan, hosts)
        self.depth = {stage.name: depth for depth, stage in enumerate(spec.stage)}
        self._stages = {stage.name: stage for stage in spec.stage}
        self._sessions = sessions
        # here, once: `isinstance` with a protocol takes 10 us
        self._overlapping = {name: each for name, each in sessions.items() if isinstance(each, Overlapping)}
        self._continuous = {name: each for name, each in plan.operators.items() if isinstance(each, Continuous)}
        self._filling = {name: each for name, each in plan.operators.items() if isinstance(each, Filling)}
        beside = plan.operators.items() if device.host_is_free else ()
        self._preparing = {name: each for name, each in beside if isinstance(each, Prepares)}
        self._on_host = {name for name, each in beside if runs_on_host(each)}
        # whether some steps need no device, which works on other parts meanwhile; read for each task at each event
        self.works_beside = bool(self._preparing or self._on_host)
        self._batch_s: dict[str, float] = {}  # of a stage's full batches, lately
        self.encode_s = math.inf  # of a part, lately
        decode = self.plan.decode
        self._resizes = tuple(stage.name for stage in spec.operators if self.plan.resizes(stage.name))
        raw = not self.hosted.issuperset(self._resizes)
        self._preprocess = HostPictures(decode.of_models, raw=True) if raw else device.preprocess(decode.pictures)
        self._resize = device.preprocess(decode.resized)
        self._after = {stage.name: self._found_after(stage.name) for stage in spec.stage}
        self._format = load_format(spec.encode, device.encoder, self.plan.labels)

    def stage(self, name: str) -> Stage:
        """The stage called `name`; KeyError when this revision has none."""
        return self._stages[name]

    def after(self, name: str) -> str | None:
        """The stage that takes what `name` gives, past any stage that is part of the same step; None after encode."""
        return self._after[name]

    def _found_after(self, name: str) -> str | None:
        following = self.spec.next_stage(name)
        while following is not None and following.name in self._resizes and self.hosted.issuperset(self._resizes):
            following = self.spec.next_stage(following.name)
        return following.name if following else None

    def most_batches(self, stage: OperatorStage) -> int:
        """Full batches that are worth giving to `operate` at once: as many as can be in flight, more of short ones."""
        session = self._overlapping.get(stage.name)
        if session is None:
            return 1
        return max(session.in_flight, min(_MOST_BATCHES, int(_STEP_S / self._batch_s.get(stage.name, _STEP_S))))

    def waiting_rows(self, stage: OperatorStage, part: Part) -> Mapping[RowKind, int]:
        """Rows of a part that wait for a batch of a stage with a model; none where it waits for no others."""
        if (filling := self._filling.get(stage.name)) is not None:
            return filling.waiting_rows(part, self._sessions[stage.name])
        rows = self.plan.operators[stage.name].rows(part)
        return {RowKind(0, stage.max_batch): rows} if rows else {}

    def counts(self, stage: str) -> BatchCounts:
        """Counts of the runs of a stage's model since the last call."""
        taken = self.plan.operators[stage].counts.take()
        if full_s := [seconds for rows, most, seconds in taken.times if rows == most and seconds > 0]:
            self._batch_s[stage] = min(full_s)
        return taken

    def model(self, stage: OperatorStage) -> ModelSpec | None:
        """The card of a stage's model; None where it has none here."""
        session = self._sessions.get(stage.name)
        return None if session is None else session.spec

    @property
    def models(self) -> list[ModelSpec]:
        """The cards of the models of its stages here."""
        return [session.spec for session in self._sessions.values()]

    def in_order(self, name: str) -> bool:
        """Whether a stage must see all parts of a segment here, in their order."""
        operator = self.plan.operators.get(name)
        return operator is not None and operator.in_order

    def decode(self, segment: Segment, buffers: Sequence[memoryview], tick: Tick) -> Iterator[Part]:
        """Parts of a segment, one at a time as asked for."""
        self._begin_work()
        return self._device.decode(segment, buffers, self.plan.decode, self._preprocess, tick)

    def _begin_work(self) -> None:
        if self._device.gpu is not None:
            self._device.gpu.begin_work()

    def encode(self, part: Part, tick: Tick) -> bytes:
        """The body of the part's Result."""
        began_s = time.monotonic()
        host = part if self._format.anywhere else part.on_host()
        encoded = self._format.encode(host, tick)
        specs, buffers = pack_arrays(encoded.arrays)
        computed_s = part.meta.computed_s + time.monotonic() - began_s
        meta = part.meta.model_copy(update={"not_finite": not_finite(host), "computed_s": computed_s})
        result = Result(meta=meta, format=self.spec.encode.format, arrays=specs, facts=encoded.facts)
        return result.encode(buffers)

    def encode_all(self, parts: Sequence[Part], tick: Tick) -> list[bytes | Exception]:
        """The body of each part's Result, or its error."""
        began_s = time.monotonic()
        made: list[bytes | Exception] = []
        for part in parts:
            try:
                made.append(self.encode(part, tick))
            except Exception as error:
                made.append(error)
        self.encode_s = (time.monotonic() - began_s) / len(parts)
        return made

    def gathers(self, stage: str) -> bool:
        """Whether a stage takes the entire media as one part, which the job's collector makes."""
        return bool(self.plan.operators[stage].entire_media) if stage in self.plan.operators else False

    def to_gather(self, part: Part, stage: str) -> bytes:
        """The body of a Result with what a stage of the entire media takes of a part."""
        operator, named = self.plan.operators[stage], self._stages[stage]
        assert isinstance(named, OperatorStage)
        names = [named.reads.get(name, name) for name in operator.entire_media]
        host = part.with_arrays({name: part.arrays[name] for name in names if name in part.arrays}).on_host()
        specs, buffers = pack_arrays(host.arrays)
        return Result(meta=host.meta, format=named.kind, arrays=specs).encode(buffers)

    def continuous(self, stage: str) -> bool:
        """Whether parts of a stage join work that is going on."""
        return stage in self._continuous

    def encodes_apart(self, stage: Stage) -> bool:
        """Whether a stage encodes pictures of a device that infers meanwhile."""
        return isinstance(stage, EncodeStage) and self._device.host_is_free and self._format.anywhere

    def beside(self, stage: str, prepared: bool) -> bool:
        """Whether the next step of a part at a stage needs no device, which works on other parts meanwhile."""
        return stage in self._on_host or (stage in self._preparing and not prepared)

    def feeds_beside(self, stage: str) -> bool:
        """Whether the part that a stage gives has such a step next, in this process."""
        following = self.after(stage) if self.works_beside else None
        return following is not None and following in self.hosted and self.beside(following, False)

    def prepare(self, stage: str, part: Part) -> Part:
        """The part with what its operator makes in advance."""
        return self._preparing[stage].prepare(part)

    def begin(self, stage: OperatorStage, part: Part, urgent: bool) -> tuple[Running, Stepping]:
        """Begin work on a part of a continuous stage. Raises RigflowError."""
        operator, session = self._continuous[stage.name], self._sessions[stage.name]
        assert isinstance(session, Stepping), "the operator runs no other"
        return operator.begin(part, session, urgent), session

    def outcome(self, stage: OperatorStage, part: Part, running: Running) -> Part | RigflowError:
        """What became of a part of a continuous stage."""
        outcome = running.outcome()
        return outcome if isinstance(outcome, RigflowError) else self.plan.kept(stage.name, part, outcome)

    def operate(
        self, stage: OperatorStage, parts: Sequence[Part], tick: Tick, only_full: bool = False
    ) -> list[Part | RigflowError]:
        """Parts after an operator, in the order they came; each part's outcome is its own.

        With `only_full`, a part with rows that fill no batch is Begun, and given once more later.
        """
        self._begin_work()
        if stage.name in self._resizes:
            return [resized_part(part, self._resize, tick) for part in parts]
        session = self._sessions.get(stage.name)
        filling = self._filling.get(stage.name)
        if only_full and session is not None and filling is not None:
            outcomes = filling.run_full(parts, session, tick)
        else:
            outcomes = self.plan.operators[stage.name].run(parts, session, tick)
        return [
            outcome if isinstance(outcome, RigflowError | Begun) else self.plan.kept(stage.name, part, outcome)
            for part, outcome in zip(parts, outcomes, strict=True)
        ]


def _hosted(spec: PipelineSpec, plan: Plan, hosts: Hosts) -> frozenset[str]:
    """The stages that a worker hosts; a stage that takes parts in order only with all that come before it."""
    hosted: set[str] = set()
    for stage in spec.stage:
        operator = plan.operators.get(stage.name)
        alone = operator is not None and operator.in_order and len(hosted) < spec.stage.index(stage)
        if hosts(stage) and not alone:
            hosted.add(stage.name)
    return frozenset(hosted)

"""The stages between decode and encode of one pipeline revision, thin: engines do the computing."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from engines.inference.batch import infer_parts
from engines.inference.session import Overlapping
from engines.outputs.format import load_format
from engines.part import Part, Tick, not_finite, pack_arrays
from engines.ports import Device, Session
from engines.transforms import preprocess_part
from schemas.errors import RigflowError
from schemas.messages import Result, Segment
from schemas.pipeline import InferStage, PipelineSpec, Stage

Hosts = Callable[[Stage], bool]


class LoadedPipeline:
    """One pipeline revision in one worker: its spec, the models' sessions and the stages this worker hosts.

    Decode and preprocess in one process are one step: each frame is converted as it leaves the decoder, so full-size
    pictures never pile up (law 6).
    """

    def __init__(self, spec: PipelineSpec, hosts: Hosts, sessions: Mapping[str, Session], device: Device) -> None:
        self.spec = spec
        self._device = device
        self.hosted = frozenset(stage.name for stage in spec.stage if hosts(stage))
        self.depth = {stage.name: depth for depth, stage in enumerate(spec.stage)}
        self._stages = {stage.name: stage for stage in spec.stage}
        self._sessions = sessions
        # once, not at each choice among tasks: to compare an object with a protocol takes 10 us
        self._overlapping = {name: each for name, each in sessions.items() if isinstance(each, Overlapping)}
        self._fused = {spec.decode.name, spec.preprocess.name} <= self.hosted
        self._preprocess = device.preprocess(spec.preprocess)
        self._format = load_format(spec.encode, device.encoder)

    def stage(self, name: str) -> Stage:
        """The stage called `name`; KeyError when this revision has none."""
        return self._stages[name]

    def after(self, name: str) -> str | None:
        """The stage that takes what `name` gives, past any stage that is part of the same step; None after encode."""
        if name == self.spec.decode.name and self._fused:
            name = self.spec.preprocess.name
        following = self.spec.next_stage(name)
        return following.name if following else None

    def session_of(self, stage: InferStage) -> Session:
        """The session of a stage's model."""
        return self._sessions[stage.model]

    def most_rows(self, stage: InferStage) -> int:
        """Rows that are worth giving to `infer` at once: a batch for each that can be in flight."""
        session = self._overlapping.get(stage.model)
        return stage.max_batch * (session.in_flight if session is not None else 1)

    def decode(self, segment: Segment, buffers: Sequence[memoryview], tick: Tick) -> Iterator[Part]:
        """Parts of a segment, one at a time as asked for."""
        return self._device.decode(segment, buffers, self.spec, self._preprocess if self._fused else None, tick)

    def preprocess(self, part: Part, tick: Tick) -> Part:
        """A part that came with raw frames, as uint8 arrays."""
        return preprocess_part(part, self._preprocess, tick)

    def encode(self, part: Part, tick: Tick) -> bytes:
        """The body of the part's Result."""
        host = part if self.spec.encode.format == "video" else part.on_host()
        encoded = self._format.encode(host, tick)
        specs, buffers = pack_arrays(encoded.arrays)
        meta = part.meta.model_copy(update={"not_finite": not_finite(host)})
        result = Result(meta=meta, format=self.spec.encode.format, arrays=specs, facts=encoded.facts)
        return result.encode(buffers)

    def infer(self, stage: InferStage, parts: Sequence[Part], tick: Tick) -> list[Part | RigflowError]:
        """Parts after a model, in the order they came; each part's outcome is its own."""
        return infer_parts(stage, self.session_of(stage), parts, tick)

"""speech: windows of sound -> the speech in them, in chunks of at most 30 s, by Silero's network."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from engines.inference.states import fed_inputs, first_state
from engines.of_jobs import OfJobs
from engines.operators.base import BaseOperator, model_hint, required_model
from engines.options import Options
from engines.part import Array, Part, Tick, Value
from engines.planned import HEAD, SOUND, Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.speech.vad import CONTEXT, RATE, WINDOW, Run, SpeechRules, packed, runs_of, windows_of
from schemas.errors import MediaError, ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

PIECES = "pieces"
_QUIETER, _LEAST_QUIET = 0.15, 0.01
_MOST_JOBS = 16  # whose first speech is kept, 2 MB each
_AT_ONCE = 4096  # windows in one run of a network that takes many, 131 s; then `tick` is called
_MODEL = "silero-vad"


class SpeechOptions(Options):
    """Speech begins where its probability is `threshold`, and ends where it is below `quiet` for `min_silence_ms`.

    `quiet` left out is `threshold` - 0.15. Runs of speech not longer than `min_speech_ms` are left out; others get
    `pad_ms` on both sides, and are packed into chunks of at most `longest_s`.
    """

    threshold: float = Field(default=0.5, gt=0, le=1)
    quiet: float | None = Field(default=None, ge=0, le=1)
    min_speech_ms: float = Field(default=0, ge=0, le=60_000)
    min_silence_ms: float = Field(default=160, ge=0, le=60_000)
    pad_ms: float = Field(default=400, ge=0, le=5000)
    longest_s: float = Field(default=30, ge=1, le=600)

    @property
    def rules(self) -> SpeechRules:
        """The rules in samples."""
        quiet = max(self.threshold - _QUIETER, _LEAST_QUIET) if self.quiet is None else self.quiet
        ms = RATE / 1000
        times = (self.min_speech_ms * ms, self.min_silence_ms * ms, self.pad_ms * ms, self.longest_s * RATE)
        return SpeechRules(self.threshold, quiet, *times)


class Speech(BaseOperator[SpeechOptions]):
    """`sound`, a row a window, becomes `sound`, a row a chunk: runs of speech behind each other, without the silence.

    `pieces [M, 2]` float64, ragged: the seconds of each run on the media's clock, from its first sample to the one
    after its last. A window without speech has no chunks. The state of the network begins anew in each window, so
    chunks depend on the window alone. Of `head`, the first seconds of the media, the first chunk of speech becomes the
    `head` of a part's first chunk; it is empty where there is none.
    """

    options_class = SpeechOptions
    needs_model = True
    on_host = True  # it takes small steps one after the other, and each kind of GPU would round in its own way

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        self._rules = self._options.rules
        self._longest = int(self._options.longest_s * RATE)
        self._heads: OfJobs[Array] = OfJobs(_MOST_JOBS)
        self._sound = _sound_input(required_model(stage, model, model_hint(_MODEL)))

    def plan(self, inputs: Arrays) -> Arrays:
        """`sound` and `pieces`."""
        stage = self._stage
        check_sound(stage, inputs)
        if stage.keeps:
            what = f"stage `{stage.name}` keeps `{stage.keeps[0]}`, which has a row a window, and chunks are others"
            raise PipelineError(what, "leave out `keeps`")
        sound = Tensor("float32", ("W", "count"), ragged=True)
        pieces = Tensor("float64", ("W", "count", 2), ragged=True)
        return {SOUND: sound, PIECES: pieces, **({HEAD: sound} if HEAD in inputs else {})}

    def rows(self, part: Part) -> int:
        """Return 0: a window is as much as one run of the network takes, so parts do not wait for others."""
        return 0

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its chunks, or its error."""
        assert session is not None, "a stage with a model has a session"
        outcomes: list[Part | RigflowError] = []
        for part in parts:
            try:
                outcomes.append(self._chunks(part, session, tick))
            except (MediaError, ModelError) as error:
                outcomes.append(error)
        return outcomes

    def _chunks(self, part: Part, session: Session, tick: Tick) -> Part:
        sound, clock = sound_of(part), part.meta.media.clock
        ticks_per_s = 1 / clock.time_base
        rows: list[Array] = []
        pieces: list[Array] = []
        pts = []
        for number, begin in enumerate(part.meta.pts):
            window = sound.row(number)
            begin_s = clock.seconds(begin)
            for chunk in packed(self._runs(window, session, tick), self._longest):
                rows.append(_cut(window, chunk))
                pieces.append(begin_s + np.array(chunk, np.float64) / RATE)
                pts.append(begin + int(chunk[0].start * ticks_per_s / RATE))
            self.counts.add(1, 1)
        made: dict[str, Value] = {
            SOUND: Ragged.of(rows, np.zeros(0, np.float32)),
            PIECES: Ragged.of(pieces, np.zeros((0, 2))),
        }
        head = part.arrays.get(HEAD)
        if isinstance(head, Ragged):
            first = self._first(part, head.row(0), session, tick) if pts else np.zeros(0, np.float32)
            made[HEAD] = Ragged(first, np.array([0, *[len(first)] * len(pts)], np.int64))
        return part.with_arrays(made, pts=tuple(pts))

    def _first(self, part: Part, head: Array, session: Session, tick: Tick) -> Array:
        """The first chunk of speech in the head of a part's media; empty without one. It is found once for a media."""

        def find() -> Array:
            chunks = packed(self._runs(head, session, tick), self._longest)
            return _cut(head, chunks[0]) if chunks else np.zeros(0, np.float32)

        return self._heads.value(part, find)

    def _runs(self, window: Array, session: Session, tick: Tick) -> list[Run]:
        if not len(window):
            return []
        return runs_of(self._probabilities(windows_of(window), session, tick).tolist(), len(window), self._rules)

    def _probabilities(self, windows: Array, session: Session, tick: Tick) -> Array:
        """The probability of speech of each of `windows [N, 576]`; the state goes from one to the next."""
        spec = session.spec
        state, feeds = first_state(spec), fed_inputs(spec)
        [answer] = (tensor.name for tensor in spec.outputs if tensor.name not in feeds.values())
        # a network of one window a run has a state for each row of a batch; the other takes windows one after the other
        alone = any(isinstance(size, str) for tensor in spec.inputs if tensor.state for size in tensor.shape)
        found = []
        step = 1 if alone else _AT_ONCE
        for first in range(0, len(windows), step):
            outputs = session.run({self._sound: windows[first : first + step], **state})
            state = {name: outputs[output] for name, output in feeds.items()}
            found.append(np.asarray(outputs[answer]).reshape(-1))
            if not first % _AT_ONCE:
                tick()
        return np.concatenate(found)


def check_sound(stage: OperatorStage, inputs: Arrays) -> None:
    """Raise PipelineError unless the arrays have `sound` of one channel."""
    sound = inputs.get(SOUND)
    if sound is None or not sound.ragged or sound.dtype != "float32" or len(sound.shape) != 2:
        what = f"stage `{stage.name}` wants sound of one channel"
        raise PipelineError(what, 'media = ["audio"], and in its decode stage rate = 16000 and channels = 1')


def sound_of(part: Part) -> Ragged:
    """The sound of a part, a row a window or a chunk. Raises MediaError."""
    sound = part.arrays.get(SOUND)
    if not isinstance(sound, Ragged) or sound.values.ndim != 1 or len(sound) != len(part.meta.pts):
        raise MediaError("a part has no row of sound for each of its windows", "publish the job again")
    return sound


def _cut(window: Array, chunk: Sequence[Run]) -> Array:
    """The runs of a chunk behind each other."""
    return np.concatenate([window[run.start : run.end] for run in chunk])


def _sound_input(model: ModelSpec) -> str:
    """The input of sound of a network of Silero's form. Raises ModelError."""
    found = next((tensor for tensor in model.inputs if tensor.sound), None)
    others = [tensor for tensor in model.inputs if tensor is not found and not tensor.state]
    answers = [tensor for tensor in model.outputs if tensor.name not in model.state_outputs]
    sizes = found and found.sound and (found.sound.rate, found.sound.samples, found.sound.context)
    if found is None or sizes != (RATE, WINDOW, CONTEXT) or others or len(answers) != 1 or not model.state_outputs:
        what = f"model `{model.name}` does not find speech: it is no network of Silero's form at 16 kHz"
        raise ModelError(what, model_hint(_MODEL, model))
    return found.name

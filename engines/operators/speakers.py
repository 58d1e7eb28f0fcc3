"""speakers: chunks of speech -> vectors of the voices in them, by a network of speakers."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from pydantic import Field

from engines.operators.base import BaseOperator, model_hint, required_model
from engines.operators.speech import PIECES, check_sound, sound_of
from engines.options import Options
from engines.part import Array, Part, Tick
from engines.planned import HEAD, SOUND, Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.speech.mel import RATE
from engines.speech.voices import HEARD, VOICES, spans_of, voice_input, voices_of
from schemas.errors import MediaError, ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

_MODEL = "speaker-encoder"


class SpeakersOptions(Options):
    """A voice is looked at in windows of `window_s` seconds, a new one every `hop_s`."""

    window_s: float = Field(default=1.5, ge=0.2, le=30)
    hop_s: float = Field(default=0.75, ge=0.1, le=30)


class Speakers(BaseOperator[SpeakersOptions]):
    """`sound`, a row a chunk, and `pieces` stay, with `head`. `voices [M, D]` int16, ragged: a vector of each window of
    the chunk's runs, in units of 1/32767. `heard [M, 2]` float64, ragged: its seconds on the media's clock.

    Windows end with the run of speech: none has two runs.
    """

    options_class = SpeakersOptions
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        model = required_model(stage, model, model_hint(_MODEL))
        _, self._length = voice_input(model, model_hint(_MODEL, model))

    def plan(self, inputs: Arrays) -> Arrays:
        """See the class."""
        check_sound(self._stage, inputs)
        if PIECES not in inputs:
            raise PipelineError(f"stage `{self._stage.name}` wants runs of speech", "put a stage of kind speech before")
        voices = Tensor("int16", ("W", "count", self._length), ragged=True)
        heard = Tensor("float64", ("W", "count", 2), ragged=True)
        kept = {name: inputs[name] for name in (SOUND, PIECES, HEAD) if name in inputs}
        return {**kept, VOICES: voices, HEARD: heard}

    def rows(self, part: Part) -> int:
        """Return 0: a batch has windows of one part alone, so that vectors do not depend on others."""
        return 0

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its voices, or its error."""
        assert session is not None, "a stage with a model has a session"
        outcomes: list[Part | RigflowError] = []
        for part in parts:
            try:
                outcomes.append(self._heard(part, session, tick))
            except (MediaError, ModelError) as error:
                outcomes.append(error)
        return outcomes

    def _heard(self, part: Part, session: Session, tick: Tick) -> Part:
        sound, pieces = sound_of(part), part.arrays.get(PIECES)
        if not isinstance(pieces, Ragged) or len(pieces) != len(sound):
            raise MediaError("a part has no runs of speech for each of its chunks", "publish the job again")
        voices, heard = [], []
        for number in range(len(sound)):
            windows, seconds = self._windows(sound.row(number), pieces.row(number))
            heard.append(seconds)
            voices.append(self._voices(windows, session))
            tick()
        made = {VOICES: Ragged.of(voices, np.zeros((0, self._length), np.int16))}
        made[HEARD] = Ragged.of(heard, np.zeros((0, 2)))
        return part.with_arrays({**part.arrays, **made})

    def _windows(self, sound: Array, pieces: Array) -> tuple[list[Array], Array]:
        """The windows of a chunk, and their seconds."""
        window, hop = (round(each * RATE) for each in (self._options.window_s, self._options.hop_s))
        windows, seconds, first = [], [], 0
        for begin_s, end_s in pieces.tolist():
            run = sound[first : first + round((end_s - begin_s) * RATE)]
            first += len(run)
            for start, end in spans_of(len(run), window, hop) if len(run) else ():
                windows.append(run[start:end])
                seconds.append((begin_s + start / RATE, begin_s + end / RATE))
        return windows, np.array(seconds, np.float64).reshape(-1, 2)

    def _voices(self, windows: Sequence[Array], session: Session) -> Array:
        if not windows:
            return np.zeros((0, self._length), np.int16)
        most = self._stage.max_batch
        return voices_of(windows, session, most, partial(self.counts.add, room=most))

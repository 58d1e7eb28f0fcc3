"""speak: `text`, a row of UTF-8 a window, becomes `sound`, a row of float32 samples, and `rate [W]` int32 in Hz."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from engines.operators.base import BaseOperator, each_part, each_row, required_model, with_rows
from engines.options import Options
from engines.part import Array, Part, Tick, Value
from engines.planned import CONSENT, SOUND, Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.sentences import sentences
from engines.speaking.espeak import check_espeak
from engines.speaking.phonemes import symbols_of, voice_weights
from engines.speaking.pinyin import check_pinyin
from engines.speaking.voice import Manner, speak
from engines.texts import TEXT, text_of_row, text_rows, text_tensor
from engines.ticking import ticking
from schemas.errors import ItemTooLarge, PipelineError, RigflowError, UsageError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage
from schemas.speech import MOST_STEPS

_RATE = "rate"
_MOST = 20_000  # characters of a row: some 20 minutes of sound, which are in memory together
_SENTENCE_S = 300.0  # a run that takes longer is stuck
_VOICE = "add a voice of Piper, Kokoro or Matcha by `rigflow model add`, see docs/speak.md"
_NOTHING = "a text without letters and digits became no sound"
_Weight: TypeAlias = Annotated[float, Field(ge=0, le=1000)]


class SpeakOptions(Options):
    """`voice`: a name, or names with weights of a model that blends; "": its first. `language` of espeak-ng; "": the
    voice's own. `noise`, `noise_width`: of the sound and of the durations; None: the voice's own. `pause` in seconds is
    between sentences of a row; `trim`: leave out silence at the ends of a sentence. `steps`, `guidance`: of a cloned
    voice; None: its own.
    """

    voice: str | dict[str, _Weight] = ""
    language: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,32}$")
    speed: float = Field(default=1.0, ge=0.25, le=4)
    noise: float | None = Field(default=None, ge=0, le=4)
    noise_width: float | None = Field(default=None, ge=0, le=4)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    pause: float = Field(default=0.3, ge=0, le=60)
    trim: bool = True
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=100)


class Speak(BaseOperator[SpeakOptions]):
    """Speaks sentence by sentence, one in a run: padding to a common length would change the last bits of the sound."""

    options_class = SpeakOptions
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        """Raises PipelineError, and PluginMissing where the model needs espeak-ng and it is not here."""
        super().__init__(stage, model)
        options = self._options
        model = required_model(stage, model, _VOICE)
        if model.speech is None:
            raise PipelineError(f"stage `{stage.name}`: model `{model.name}` does not speak", _VOICE)
        self._speech = speech = model.speech
        try:
            voice = voice_weights(options.voice, speech) if speech.voices or options.voice else []
            loudest = max(range(len(voice)), key=voice.__getitem__, default=0)
            self._language = options.language or speech.language_of(loudest)
            if speech.alphabet not in ("letters", "pieces"):
                check_espeak(self._language)
            if speech.alphabet == "pinyin":
                check_pinyin()
        except UsageError as error:
            raise PipelineError(f"stage `{stage.name}`: model `{model.name}`: {error.what}", error.hint) from error
        given = (options.noise, options.noise_width)
        noise = tuple(own if new is None else new for new, own in zip(given, speech.noise, strict=True))
        _check_options(f"stage `{stage.name}`: model `{model.name}`", options, model)
        steps = speech.steps if options.steps is None else options.steps
        guidance = speech.guidance if options.guidance is None else options.guidance
        self._manner = Manner(options.speed, voice, (noise[0], noise[1]), options.seed, options.trim, steps, guidance)
        self._consent = consent_of(model)
        self._pause = np.zeros(round(options.pause * speech.rate), np.float32)

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the sound and its rate. Raises PipelineError without a text to speak."""
        name = self._stage.reads.get(TEXT, TEXT)
        text = inputs.get(name)
        if text is None or not text.text:
            there = ", ".join(f"`{each}`" for each in inputs) or "nothing"
            what = f"stage `{self._stage.name}` speaks `{name}`, and {'it is no text' if text else f'there is {there}'}"
            raise PipelineError(what, 'take media = ["text"], or set reads')
        consent = {CONSENT: text_tensor()} if self._consent else {}
        return {SOUND: Tensor("float32", ("W", "count"), ragged=True), _RATE: Tensor("int32", ("W",)), **consent}

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its sound. A text that cannot be spoken is a failed item."""
        assert session is not None, "a stage with a model has a session"
        return each_part(parts, lambda part: self._spoken(part, session, tick))

    def _spoken(self, part: Part, session: Session, tick: Tick) -> Part:
        text = part.arrays[self._stage.reads.get(TEXT, TEXT)]
        assert isinstance(text, Ragged), "the plan says so"
        sounds: list[Array] = []
        errors = each_row(part, lambda number: sounds.append(self._of_text(text_of_row(text, number), session, tick)))
        made: dict[str, Value] = {
            SOUND: Ragged.of(sounds, np.zeros(0, np.float32)),
            _RATE: np.full(len(sounds), self._speech.rate, np.int32),
        }
        notes = [] if all(map(len, sounds)) else [_NOTHING]
        if self._consent:
            made[CONSENT] = text_rows([self._consent] * len(sounds))
            notes.append(self._consent)
        return with_rows(part, made, errors, self._stage.keeps, notes)

    def _of_text(self, text: str, session: Session, tick: Tick) -> Array:
        """Return the sound of a text; of length 0 if there is nothing to speak."""
        if len(text) > _MOST:
            what = f"a text of {len(text)} characters is too long to be spoken in one piece, at most {_MOST}"
            raise ItemTooLarge(what, 'cut it, or set pieces = "sentences" in the decode stage')
        made: list[Array] = []
        for sentence in sentences(text):
            chunks = []
            for symbols in symbols_of(sentence, self._speech, self._language):
                with ticking(tick, _SENTENCE_S):  # half a minute of sound takes longer on a slow processor
                    chunks.append(speak(session, self._speech, symbols, self._manner))
                self.counts.add(1, 1)
                tick()
            made += [self._pause, *chunks] if made and chunks else chunks
        return np.concatenate([np.zeros(0, np.float32), *made])


def _check_options(model: str, options: SpeakOptions, spec: ModelSpec) -> None:
    """Raise PipelineError for options that the model has no input for."""
    names = {tensor.name for tensor in spec.inputs}
    if "steps" not in names and (options.steps, options.guidance) != (None, None):
        raise PipelineError(f"{model} does not speak in steps", "steps and guidance are of cloned voices: omit them")
    if "guidance" not in names and options.guidance is not None:
        raise PipelineError(f"{model} has no guidance", "guidance is of voices of ZipVoice: omit it")
    if "speed" not in names and options.speed != 1:
        raise PipelineError(f"{model} has one speed, that of its voice", "omit speed")


def consent_of(model: ModelSpec) -> str:
    """Return in words whose consent a cloned voice has; "" for other voices."""
    consent = model.speech.consent if model.speech else None
    if consent is None:
        return ""
    return f"synthetic speech, cloned voice {model.name}, consent {consent.file} sha256 {consent.sha256}"

"""transcribe: chunks of sound -> what is said in them, with times of words, by Whisper, Paraformer or SenseVoice."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from engines.operators.base import BaseOperator, model_hint, required_model
from engines.operators.speech import PIECES, check_sound, sound_of
from engines.part import Array, Part, Tick, Value
from engines.planned import Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.speech.funasr import FunasrRecogniser
from engines.speech.mel import RATE
from engines.speech.model import SpeechModel
from engines.speech.recogniser import Recogniser, TranscribeOptions
from engines.speech.transcript import Chunk, Transcript, batches_of
from engines.speech.whisper import WhisperRecogniser
from engines.speech.words import Word
from engines.texts import TEXT, text_rows, text_tensor
from schemas.errors import MediaError, ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

FEATURES = "features"  # what a model takes of each chunk, where it is made in advance
WORDS, SPAN, LANGUAGE, QUALITY = "words", "span", "language", "quality"
_MODEL = "faster-whisper-base"
_RECOGNISERS: tuple[type[Recogniser], ...] = (WhisperRecogniser, FunasrRecogniser)


class Transcribe(BaseOperator[TranscribeOptions]):
    """`text` ragged uint8: UTF-8, a row a chunk. `words [M, 5]` ragged float64: begin and end in seconds on the media's
    clock, probability, and the bytes `[from, to)` of the text. `span [W, 2]` float64: seconds of the chunk's first
    and last word, or of its sound. `language [W]` int32, with labels. `quality [W, 4]` float32: mean log probability,
    probability of no speech, compression ratio, probability of the language. What else a model says of a chunk is an
    array `[W]` int32, with labels.
    """

    options_class = TranscribeOptions
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        model = required_model(stage, model, model_hint(_MODEL))
        kind = next((each for each in _RECOGNISERS if each.runs(model)), None)
        if kind is None:
            what = f"stage `{stage.name}`: model `{model.name}` is no Whisper, Paraformer or SenseVoice"
            raise PipelineError(what, f"{model_hint(_MODEL, model)}; see docs/transcribe.md")
        self._recogniser = kind(stage, model, self._options)
        self._most = min(stage.max_batch, self._recogniser.most_batch)

    @property
    def head_s(self) -> float:
        """Return where the language is searched for; 0 where it is known."""
        return self._recogniser.head_s

    def plan(self, inputs: Arrays) -> Arrays:
        """See the class."""
        check_sound(self._stage, inputs)
        made = {
            TEXT: text_tensor(),
            SPAN: Tensor("float64", ("W", 2)),
            LANGUAGE: Tensor("int32", ("W",), labels=self._recogniser.languages),
            QUALITY: Tensor("float32", ("W", 4)),
        }
        made |= {name: Tensor("int32", ("W",), labels=labels) for name, labels in self._recogniser.tags.items()}
        if self._options.words:
            made[WORDS] = Tensor("float64", ("W", "count", 5), ragged=True)
        return made

    def rows(self, part: Part) -> int:
        """Return the number of chunks, if those of other parts may be in their batch."""
        return len(part.meta.pts) if self._recogniser.together else self._stage.max_batch

    def prepare(self, part: Part) -> Part:
        """Return the part with what the model takes of its chunks, where that can be made in advance."""
        try:
            made = [self._recogniser.features(chunk.sound) for chunk in self._chunks(part, 0)]
        except MediaError:  # `run` raises it again
            return part
        features = [each for each in made if each is not None]
        return part.with_arrays({**part.arrays, FEATURES: np.stack(features)}) if features else part

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its texts, or its error; if a batch fails, each part is tried alone."""
        assert session is not None, "a stage with a model has a session"
        chunks: list[Chunk] = []
        outcomes: list[Part | RigflowError | None] = []
        for number, part in enumerate(parts):
            try:
                chunks += self._chunks(part, number)
                outcomes.append(None)
            except MediaError as error:
                outcomes.append(error)
        try:
            together = self._recogniser.together and isinstance(session, SpeechModel) and session.any_batch
            batches = list(batches_of(chunks, self._most, together))
            count = partial(self.counts.add, room=self._most)
            made = self._recogniser.transcribe(parts, batches, session, tick, count)
        except ModelError as error:
            if len(parts) == 1:
                return [outcomes[0] or error]
            return [outcome for part in parts for outcome in self.run([part], session, tick)]
        done: list[Part | RigflowError] = []
        for number, (part, outcome) in enumerate(zip(parts, outcomes, strict=True)):
            own = [(chunk, found) for chunk, found in zip(chunks, made, strict=True) if chunk.group == number]
            notes = dict.fromkeys([*part.meta.notes, *(found.note for _, found in own if found.note)])
            done.append(outcome or part.with_arrays(self._arrays(part, own), notes=tuple(notes)))
        return done

    def _arrays(self, part: Part, made: Sequence[tuple[Chunk, Transcript]]) -> dict[str, Value]:
        texts, words, spans = [], [], []
        for number, (chunk, found) in enumerate(made):
            pieces = _pieces(part, number, len(chunk.sound))
            rows = [[*_placed(word, pieces, chunk.offset_s), word.probability] for word in found.words]
            text = "".join(word.text for word in found.words) or found.text
            ends = np.cumsum([0, *(len(word.text.encode()) for word in found.words)]).tolist()
            rows = [[*row, first, last] for row, first, last in zip(rows, ends, ends[1:], strict=False)]
            texts.append(text)
            words.append(np.array(rows, np.float64).reshape(-1, 5))
            spans.append((rows[0][0], rows[-1][1]) if rows else (pieces[0, 0], pieces[-1, 1]))
        arrays: dict[str, Value] = {
            TEXT: text_rows(texts),
            SPAN: np.array(spans, np.float64).reshape(-1, 2),
            LANGUAGE: np.array([self._recogniser.languages.index(found.language) for _, found in made], np.int32),
            QUALITY: np.array(
                [(found.log_prob, found.no_speech, found.compression, found.share) for _, found in made], np.float32
            ).reshape(-1, 4),
        }
        for name, labels in self._recogniser.tags.items():
            arrays[name] = np.array([labels.index(found.tags[name]) for _, found in made], np.int32)
        return {**arrays, WORDS: Ragged.of(words, np.zeros((0, 5)))} if self._options.words else arrays

    def _chunks(self, part: Part, group: int) -> Iterator[Chunk]:
        """The chunks of a part. Raises MediaError."""
        sound, offset, longest_s = sound_of(part), 0, self._recogniser.longest_s
        features = part.arrays.get(FEATURES)
        for number in range(len(sound)):
            row = sound.row(number)
            if len(row) > longest_s * RATE:
                what = f"a chunk of {len(row) / RATE:.1f} s, and {self._recogniser.family} takes {longest_s:.0f} s"
                hint = f"put a stage of the kind speech before, with longest_s of at most {longest_s:.0f}"
                raise MediaError(what, hint)
            made = features[number] if isinstance(features, np.ndarray) else None
            yield Chunk(row, group, offset / RATE, made)
            offset += len(row)


def _pieces(part: Part, number: int, samples: int) -> Array:
    """The seconds `[M, 2]` of the runs of a chunk: those of a stage speech, or all of a window."""
    pieces = part.arrays.get(PIECES)
    if isinstance(pieces, Ragged) and len(pieces.row(number)):
        return pieces.row(number)
    begin_s = part.meta.media.clock.seconds(part.meta.pts[number])
    return np.array([[begin_s, begin_s + samples / RATE]])


def _placed(word: Word, pieces: Array, offset_s: float) -> tuple[float, float]:
    """Begin and end of a word on the media's clock: both in the run that has its middle."""
    lengths = pieces[:, 1] - pieces[:, 0]
    ends = np.cumsum(lengths)
    middle = (word.start + word.end) / 2 - offset_s
    number = min(int(np.searchsorted(ends, middle, side="right")), len(pieces) - 1)
    later = float(pieces[number, 0] - (ends[number] - lengths[number])) - offset_s
    return word.start + later, word.end + later

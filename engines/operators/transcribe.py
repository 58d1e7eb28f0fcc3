"""transcribe: chunks of sound -> what is said in them, with times of words, by Whisper."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from pydantic import Field, field_validator

from engines.operators.base import BaseOperator, required_model
from engines.operators.speech import PIECES, check_sound, sound_of
from engines.options import Options
from engines.part import Array, Part, Tick, Value
from engines.planned import HEAD, Arrays, Tensor
from engines.ports import Session
from engines.ragged import Ragged
from engines.speech.mel import MOST_SAMPLES, RATE
from engines.speech.model import Search, SpeechModel
from engines.speech.network import is_multilingual, is_whisper
from engines.speech.tokens import LANGUAGES, TASKS, Tokens
from engines.speech.transcriber import Chunk, Spoken, Transcriber, Transcript, Wanted, batches_of
from engines.speech.words import Word
from engines.texts import TEXT, text_rows, text_tensor
from schemas.errors import MediaError, ModelError, PipelineError, RigflowError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

WORDS, SPAN, LANGUAGE, QUALITY = "words", "span", "language", "quality"
_MOST_JOBS = 1000  # whose languages are kept
_MODEL = 'name a Whisper: model = "faster-whisper-base"'


class TranscribeOptions(Options):
    """`language` is a code such as "de", or "" to find it: by the first speech of the media, in `head`, or else by the
    first chunk of each part; with `each_chunk` each chunk has its own. `task` "translate" gives English. `prompt` is
    text that comes before each chunk: it shows how names and punctuation are written; `hot_words` are likely in it.
    `words`: the times of words.

    `beam`: how many texts are searched at a time. A chunk is silent if the probability of that is above `no_speech`
    and the mean log probability of its text below `log_prob`. A text that compresses better than `compression` repeats
    itself, and is searched again without repetitions.
    """

    language: str = ""
    each_chunk: bool = False
    task: str = TASKS[0]
    prompt: str = Field(default="", max_length=4000)
    hot_words: str = Field(default="", max_length=4000)
    words: bool = True
    beam: int = Field(default=5, ge=1, le=64)
    patience: float = Field(default=1.0, gt=0, le=10)
    length_penalty: float = Field(default=1.0, ge=0, le=10)
    no_speech: float = Field(default=0.6, ge=0, le=1)
    log_prob: float = Field(default=-1.0, ge=-1000, le=0)
    compression: float = Field(default=3.0, ge=1, le=1000)

    @field_validator("language")
    @classmethod
    def _known(cls, code: str) -> str:
        if code and code not in LANGUAGES:
            raise ValueError(f"there is no language {code}: give a code such as en, de, zh, or leave it out")
        return code

    @field_validator("task")
    @classmethod
    def _task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"there are the tasks {' and '.join(TASKS)}")
        return task


class Transcribe(BaseOperator[TranscribeOptions]):
    """`text` ragged uint8: UTF-8, a row a chunk. `words [M, 5]` ragged float64: begin and end in seconds on the media's
    clock, probability, and the bytes `[from, to)` of the text. `span [W, 2]` float64: seconds of the chunk's first
    and last word, or of its sound. `language [W]` int32, with labels. `quality [W, 4]` float32: mean log probability,
    probability of no speech, compression ratio, probability of the language.
    """

    options_class = TranscribeOptions
    needs_model = True

    def __init__(self, stage: OperatorStage, model: ModelSpec | None) -> None:
        super().__init__(stage, model)
        options = self._options
        model = required_model(stage, model, _MODEL)
        if not is_whisper(model):
            raise PipelineError(f"stage `{stage.name}` cannot run model `{model.name}`, which is no Whisper", _MODEL)
        self._multilingual = is_multilingual(model)
        if not self._multilingual and (options.language not in ("", "en") or options.task == "translate"):
            wish = "translate" if options.task == "translate" else f"take {options.language}"
            raise PipelineError(
                f"stage `{stage.name}`: model `{model.name}` knows English alone, it cannot {wish}", _MODEL
            )
        # sums of float depend on the size of the batch, those of int8 do not: see docs/transcribe.md
        self._together = model.precision.startswith("int8")
        self._made: tuple[Session, Transcriber] | None = None
        self._languages: dict[tuple[str, str, str, int], Spoken] = {}

    def plan(self, inputs: Arrays) -> Arrays:
        """See the class."""
        check_sound(self._stage, inputs)
        made = {
            TEXT: text_tensor(),
            SPAN: Tensor("float64", ("W", 2)),
            LANGUAGE: Tensor("int32", ("W",), labels=LANGUAGES),
            QUALITY: Tensor("float32", ("W", 4)),
        }
        if self._options.words:
            made[WORDS] = Tensor("float64", ("W", "count", 5), ragged=True)
        return made

    def rows(self, part: Part) -> int:
        """Return the number of chunks, if those of other parts may be in their batch."""
        return len(part.meta.pts) if self._together else self._stage.max_batch

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return each part with its texts, or its error; if a batch fails, each part is tried alone."""
        assert session is not None, "a stage with a model has a session"
        chunks: list[Chunk] = []
        outcomes: list[Part | RigflowError | None] = []
        for number, part in enumerate(parts):
            try:
                chunks += _chunks(part, number)
                outcomes.append(None)
            except MediaError as error:
                outcomes.append(error)
        try:
            made = self._transcribed(parts, chunks, session, tick)
        except ModelError as error:
            if len(parts) == 1:
                return [outcomes[0] or error]
            return [outcome for part in parts for outcome in self.run([part], session, tick)]
        done: list[Part | RigflowError] = []
        for number, (part, outcome) in enumerate(zip(parts, outcomes, strict=True)):
            own = [(chunk, found) for chunk, found in zip(chunks, made, strict=True) if chunk.group == number]
            done.append(outcome or part.with_arrays(self._arrays(part, own)))
        return done

    def _transcribed(
        self, parts: Sequence[Part], chunks: Sequence[Chunk], session: Session, tick: Tick
    ) -> list[Transcript]:
        transcriber = self._transcriber(session)
        spoken = self._spoken(parts, transcriber) if transcriber.detects else {}
        batches = list(batches_of(chunks, self._stage.max_batch, self._together))
        count = partial(self.counts.add, room=self._stage.max_batch)
        return transcriber.transcribe(batches, spoken, tick, count)

    def _spoken(self, parts: Sequence[Part], transcriber: Transcriber) -> dict[int, Spoken]:
        """The language of each part whose media begins with speech; it is found once for a media."""
        spoken: dict[int, Spoken] = {}
        for number, part in enumerate(parts):
            head, job = part.arrays.get(HEAD), part.meta.key.job
            if not isinstance(head, Ragged) or not len(head) or not 0 < len(head.row(0)) <= MOST_SAMPLES:
                continue
            place = job.tenant, job.id, job.revision, job.generation
            if place not in self._languages:
                self._languages[place] = transcriber.language_of(head.row(0))
                while len(self._languages) > _MOST_JOBS:
                    del self._languages[next(iter(self._languages))]
            spoken[number] = self._languages[place]
        return spoken

    def _transcriber(self, session: Session) -> Transcriber:
        """The transcriber of a session, made once: its tokenizer finds the tokens that are suppressed."""
        if self._made is None or self._made[0] is not session:
            if not isinstance(session, SpeechModel):
                raise ModelError(f"model `{session.spec.name}` does not transcribe", _MODEL)
            options = self._options
            wanted = Wanted(
                options.language, options.each_chunk, options.task, options.prompt, options.hot_words, options.words,
                options.no_speech, options.log_prob, options.compression,
            )  # fmt: skip
            search = Search(options.beam, options.patience, options.length_penalty)
            tokens = Tokens(session.tokenizer, self._multilingual)
            self._made = session, Transcriber(session, tokens, self._multilingual, wanted, search)
        return self._made[1]

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
            LANGUAGE: np.array([LANGUAGES.index(found.language) for _, found in made], np.int32),
            QUALITY: np.array(
                [(found.log_prob, found.no_speech, found.compression, found.share) for _, found in made], np.float32
            ).reshape(-1, 4),
        }
        return {**arrays, WORDS: Ragged.of(words, np.zeros((0, 5)))} if self._options.words else arrays


def _chunks(part: Part, group: int) -> Iterator[Chunk]:
    """The chunks of a part. Raises MediaError."""
    sound, offset = sound_of(part), 0
    for number in range(len(sound)):
        row = sound.row(number)
        if len(row) > MOST_SAMPLES:
            what = f"a chunk of {len(row) / RATE:.1f} s, and Whisper takes 30 s"
            raise MediaError(what, "put a stage of the kind speech before, with longest_s of at most 30")
        yield Chunk(row, group, offset / RATE)
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

"""Whisper in the stage transcribe: its options, and the languages of media."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engines.of_jobs import OfJobs
from engines.part import Array, Part, Tick
from engines.planned import HEAD
from engines.ports import Session
from engines.ragged import Ragged
from engines.speech.mel import MOST_SAMPLES, RATE, features
from engines.speech.model import Search, SpeechModel
from engines.speech.network import bands_of, is_multilingual, is_whisper
from engines.speech.recogniser import TranscribeOptions, refused
from engines.speech.tokens import LANGUAGES, Tokens
from engines.speech.transcriber import Transcriber, Wanted
from engines.speech.transcript import Chunk, Spoken, Transcript
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage

_MOST_JOBS = 1000  # whose languages are kept
_MODEL = 'name a Whisper: model = "faster-whisper-base"'


class WhisperRecogniser:
    """See `engines.speech.recogniser.Recogniser`."""

    family = "Whisper"
    longest_s = MOST_SAMPLES / RATE
    most_batch = 1 << 16
    languages = LANGUAGES
    tags: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, stage: OperatorStage, model: ModelSpec, options: TranscribeOptions) -> None:
        """Raises PipelineError where a model of English alone is to do something else."""
        self._options = options
        self._bands = bands_of(model)
        if not options.itn:
            raise refused(stage, model, "is a Whisper, which has no itn", "leave it out")
        self._multilingual = is_multilingual(model)
        if not self._multilingual and (options.language not in ("", "en") or options.task == "translate"):
            wish = "translate" if options.task == "translate" else f"take {options.language}"
            raise refused(stage, model, f"knows English alone, it cannot {wish}", _MODEL)
        # sums of float depend on the size of the batch, those of int8 on a CPU do not: see docs/transcribe.md
        self.together = model.precision.startswith("int8")
        self._made: tuple[Session, Transcriber] | None = None
        self._languages: OfJobs[Spoken] = OfJobs(_MOST_JOBS)

    @property
    def head_s(self) -> float:
        """Return where the language is searched for; 0 where it is known."""
        options = self._options
        return 0.0 if options.language or options.each_chunk or not self._multilingual else options.first_s

    @staticmethod
    def runs(model: ModelSpec) -> bool:
        """Whether a model is a Whisper."""
        return is_whisper(model)

    def features(self, sound: Array) -> Array:
        """Return the bands of a chunk."""
        return features(sound, self._bands)

    def transcribe(
        self,
        parts: Sequence[Part],
        batches: Sequence[Sequence[Chunk]],
        session: Session,
        tick: Tick,
        count: Callable[[int], None],
    ) -> list[Transcript]:
        """Return the transcript of each chunk, in order."""
        transcriber = self._transcriber(session)
        spoken = self._spoken(parts, transcriber) if transcriber.detects else {}
        return transcriber.transcribe(batches, spoken, tick, count)

    def _spoken(self, parts: Sequence[Part], transcriber: Transcriber) -> dict[int, Spoken]:
        """The language of each part whose media begins with speech; it is found once for a media."""
        spoken: dict[int, Spoken] = {}
        for number, part in enumerate(parts):
            head = part.arrays.get(HEAD)
            if not isinstance(head, Ragged) or not len(head) or not 0 < len(head.row(0)) <= MOST_SAMPLES:
                continue
            first = head.row(0)
            spoken[number] = self._languages.value(part, partial(transcriber.language_of, first))
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

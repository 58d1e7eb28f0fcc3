"""FunASR's Paraformer and SenseVoice in the stage transcribe: one run of the network a chunk gives all its tokens.

Sources: modelscope/FunASR, funasr_onnx (paraformer_bin.py, sensevoice_bin.py, timestamp_utils.py) and
timestamp_tools.py for fires that are not as many as tokens.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.part import Array, Part, Tick
from engines.ports import Session
from engines.speech.fbank import fbank, stacked
from engines.speech.pieces import Piece, words_of_bpe, words_of_sentencepiece
from engines.speech.recogniser import TranscribeOptions, refused
from engines.speech.transcript import Chunk, Transcript, compression
from engines.speech.words import Word
from engines.ticking import ticking
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage
from schemas.recogniser import RecogniserSpec

_NAMES = {"paraformer": "Paraformer", "sensevoice": "SenseVoice"}
_OPTIONS = {"paraformer": {"language", "words"}, "sensevoice": {"language", "words", "each_chunk", "itn"}}
_CHUNK_S = 300.0  # a run that takes longer is stuck
_NOT_TEXT = (0, 2)  # blank and end, which may be between tokens
_UNIT_S = 0.02  # of fires: a third of a row of features
_FIRED = 1 - 1e-4
_SHIFT = -1.5  # units from a fire to the begin of its token
_SILENCE, _LONGEST = 5, 30  # units
_ROW_S = 0.06
_TAGS = 4  # rows of a SenseVoice in front: language, emotion, event, and whether numbers are written as digits
_NO_SPEECH = "nospeech"
EMOTIONS = ("", "HAPPY", "SAD", "ANGRY", "NEUTRAL", "FEARFUL", "DISGUSTED", "SURPRISED", "EMO_UNKNOWN")
EVENTS = (
    "", "Speech", "BGM", "Applause", "Laughter", "Cry", "Sneeze", "Breath", "Cough", "Sing", "Speech_Noise",
    "Event_UNK", "GBG",
)  # fmt: skip


class FunasrRecogniser:
    """See `engines.speech.recogniser.Recogniser`. A run has one chunk, without padding: so no chunk changes another."""

    together = False
    longest_s = 60.0
    most_batch = 1
    head_s = 0.0

    def __init__(self, stage: OperatorStage, model: ModelSpec, options: TranscribeOptions) -> None:
        """Raises PipelineError for options that the model does not have."""
        assert model.recogniser is not None, "it runs no other models"
        self._spec = spec = model.recogniser
        self._options = options
        self.family = _NAMES[spec.family]
        self.languages = (*spec.languages, "")
        self.tags: Mapping[str, tuple[str, ...]] = (
            {"emotion": EMOTIONS, "event": EVENTS} if spec.family == "sensevoice" else {}
        )
        for name in sorted(options.model_fields_set - _OPTIONS[spec.family]):
            if getattr(options, name) != TranscribeOptions.model_fields[name].default:
                raise refused(stage, model, f"is a {self.family}, which has no {name}", "leave it out")
        if options.language and options.language not in spec.languages:
            known = ", ".join(spec.languages)
            raise refused(stage, model, f"knows {known}, it cannot take {options.language}", "name another model")

    @staticmethod
    def runs(model: ModelSpec) -> bool:
        """Whether a model is one of FunASR's."""
        return model.recogniser is not None

    def features(self, sound: Array) -> None:
        """Return None: those of chunks have different lengths."""

    def transcribe(
        self,
        parts: Sequence[Part],
        batches: Sequence[Sequence[Chunk]],
        session: Session,
        tick: Tick,
        count: Callable[[int], None],
    ) -> list[Transcript]:
        """Return the transcript of each chunk, in order."""
        made = []
        for [chunk] in batches:
            made.append(self._transcript(chunk, session, tick))
            count(1)
            tick()
        return made

    def _transcript(self, chunk: Chunk, session: Session, tick: Tick) -> Transcript:
        spec = self._spec
        features = stacked(fbank(chunk.sound, spec.gain), spec.stack, spec.hop)
        if not len(features):
            return self._written([], self._options.language, 0.0, True, {}, chunk)
        feed = {"features": features[None], "frames": np.array([len(features)], np.int32)}
        if spec.family == "sensevoice":
            query = spec.languages.get(self._options.language, spec.any_language)
            feed |= {"language": np.array([query], np.int32)}
            feed |= {"textnorm": np.array([spec.itn[0 if self._options.itn else 1]], np.int32)}
        try:
            with ticking(tick, _CHUNK_S):
                outputs = session.run(feed)
        except ModelError as error:  # exports of Paraformer fail on sound in which they find no token
            made = self._written([], self._options.language, 0.0, True, {}, chunk)
            made.note = f"{error.what}: a chunk has no text"
            return made
        if outputs["tokens"].size and not 0 <= outputs["tokens"].min() <= outputs["tokens"].max() < len(spec.tokens):
            what = f"model `{session.spec.name}` gave a token that its {len(spec.tokens)} tokens lack"
            raise ModelError(what, "add the whole folder of the model again")
        if spec.family == "sensevoice":
            return self._of_sensevoice(outputs, chunk)
        [language] = spec.languages
        return self._written(_of_paraformer(outputs, spec, chunk.seconds), language, 1.0, True, {}, chunk)

    def _of_sensevoice(self, outputs: Mapping[str, Array], chunk: Chunk) -> Transcript:
        tokens, log_probs = outputs["tokens"][0], outputs["log_probs"][0]
        names = [self._spec.tokens[each].removeprefix("<|").removesuffix("|>") for each in tokens[:_TAGS].tolist()]
        names += [""] * (_TAGS - len(names))
        share = float(np.exp(log_probs[0])) if len(log_probs) else 0.0
        tags = {
            name: tag if tag in self.tags[name] else ""
            for name, tag in zip(("emotion", "event"), names[1:3], strict=True)
        }
        pieces = list(_of_ctc(tokens[_TAGS:], log_probs[_TAGS:], self._spec.tokens, chunk.seconds))
        made = self._written(pieces, names[0], share, False, tags, chunk)
        made.no_speech = share if names[0] == _NO_SPEECH else 0.0
        return made

    def _written(
        self, pieces: Sequence[Piece], language: str, share: float, joined: bool, tags: Mapping[str, str], chunk: Chunk
    ) -> Transcript:
        """A transcript of tokens; those of a plain Paraformer have no times, and so its words have none."""
        words = (words_of_bpe if joined else words_of_sentencepiece)(pieces)
        text = "".join(word.text for word in words)
        timed = self._options.words and any(piece.end for piece in pieces)
        placed = [_later(word, chunk.offset_s) for word in words] if timed else []
        language = language if language in self.languages else ""
        logs = [np.log(max(piece.probability, 1e-30)) for piece in pieces]
        tags = {name: tags.get(name, "") for name in self.tags}
        return Transcript(
            text, placed, language, share, float(np.mean(logs)) if logs else 0.0, 0.0, compression(text), tags
        )


def _later(word: Word, offset_s: float) -> Word:
    return Word(word.text, word.start + offset_s, word.end + offset_s, word.probability)


def _of_paraformer(outputs: Mapping[str, Array], spec: RecogniserSpec, seconds: float) -> list[Piece]:
    """The tokens of a run, with times where the network gives them."""
    tokens, probabilities = outputs["tokens"][0].tolist(), np.exp(outputs["log_probs"][0]).tolist()
    places = [number for number, each in enumerate(tokens) if each not in _NOT_TEXT]
    places = places[: max(0, int(outputs["count"][0]) - spec.tail)]
    texts = [spec.tokens[tokens[number]] for number in places]
    times = [(0.0, 0.0)] * len(places)
    if places and "us_peaks" in outputs:
        times = times_of_fires(outputs["us_peaks"][0], outputs["us_alphas"][0], len(places), seconds)
    return [Piece(text, *time, probabilities[number]) for text, time, number in zip(texts, times, places, strict=True)]


def times_of_fires(peaks: Array, alphas: Array, count: int, seconds: float) -> list[tuple[float, float]]:
    """Return begin and end of `count` tokens: a token lasts from its fire to the next one, at most 0.6 s.

    `peaks [U]` and `alphas [U]` have a value each 20 ms. If there are not as many fires as tokens and one more, they
    are where the sum of `alphas`, scaled to that number, passes a whole one.
    """
    fires = np.flatnonzero(peaks > _FIRED)
    if len(fires) != count + 1:
        total = float(alphas.sum(dtype=np.float64))
        sums = np.cumsum(alphas, dtype=np.float64) * ((count + 1) / total) if total > 0 else np.zeros(len(alphas))
        fires = np.minimum(np.searchsorted(sums, np.arange(1, count + 2) * _FIRED), len(alphas) - 1)
    begins = fires + _SHIFT
    ends = np.minimum(begins[1:], begins[:-1] + _LONGEST)
    ends[-1] = (len(peaks) + begins[-1]) / 2 if len(peaks) - begins[-1] > _SILENCE else len(peaks)
    times = np.clip(np.stack([begins[:-1], ends], axis=1) * _UNIT_S, 0.0, seconds)
    return [(start, end) for start, end in times.tolist()]


def _of_ctc(tokens: Array, log_probs: Array, names: Sequence[str], seconds: float) -> list[Piece]:
    """Best path: tokens that repeat are one, blanks none. A token lasts until the next one, at most 0.6 s."""
    first = np.flatnonzero((tokens != np.concatenate([[-1], tokens[:-1]])) & (tokens != 0))
    starts = np.minimum(first * _ROW_S, seconds)
    ends = np.minimum(np.append(starts[1:], seconds), starts + _LONGEST * _UNIT_S)
    return [
        Piece(names[int(tokens[place])], start, end, float(np.exp(log_probs[place])))
        for place, start, end in zip(first.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ]

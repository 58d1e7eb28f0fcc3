"""Texts of chunks of sound, in batches: Whisper's network, without the text before, and with times of words.

Source: SYSTRAN/faster-whisper, transcribe.py, BatchedInferencePipeline. Its sampling at higher temperatures is left
out: CTranslate2 cannot be given a seed for a chunk. A text that repeats itself is searched again instead, with runs of
tokens forbidden that came before, which needs no chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from engines.part import Array, Tick
from engines.speech.mel import features
from engines.speech.model import Generated, Search, SpeechModel
from engines.speech.network import bands_of
from engines.speech.tokens import Tokens
from engines.speech.transcript import Chunk, Spoken, Transcript, compression
from engines.speech.words import corrected, words_of

_FRAMES_PER_S = 100
_RETRIES = ((1.1, 5), (1.2, 3))  # penalty of repetition, and the length of runs that may not come twice


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make of sound; see the options of `engines.operators.transcribe`."""

    language: str
    each: bool
    task: str
    before: str
    hot_words: str
    words: bool
    most_silence: float
    least_log_prob: float
    most_compression: float


class Transcriber:
    """Transcribes the chunks of one model; `search` says how."""

    def __init__(self, model: SpeechModel, tokens: Tokens, multilingual: bool, wanted: Wanted, search: Search) -> None:
        self._model = model
        self._tokens = tokens
        self._multilingual = multilingual
        self._wanted = wanted
        self._search = replace(search, suppressed=tokens.suppressed)
        self._bands = bands_of(model.spec)

    @property
    def detects(self) -> bool:
        """Whether chunks of a group have one language, which is to be found."""
        return self._multilingual and not self._wanted.language and not self._wanted.each

    def language_of(self, sound: Array) -> Spoken:
        """Return the most probable language of at most 30 s of sound. Raises ModelError, DeviceLost."""
        states = self._model.encode(features(sound, self._bands)[None])
        return self._first_known(self._model.languages(states)[0])

    def transcribe(
        self, batches: Sequence[Sequence[Chunk]], spoken: dict[int, Spoken], tick: Tick, count: Callable[[int], None]
    ) -> list[Transcript]:
        """Return the transcript of each chunk, in order. `tick` is called after each step, `count` after each batch.

        `spoken` has the languages of groups; one that it lacks has that of its first chunk. Chunks of a group come in
        order. Raises ModelError, DeviceLost.
        """
        made: list[Transcript] = []
        ended_s: dict[int, float] = {}
        for batch in batches:
            for chunk, found in zip(batch, self._batch(batch, spoken, tick), strict=True):
                found.words = corrected(found.words, chunk.offset_s, chunk.seconds, ended_s.get(chunk.group, 0.0))
                if found.words:
                    ended_s[chunk.group] = found.words[-1].end
                made.append(found)
            count(len(batch))
            tick()
        return made

    def _batch(self, batch: Sequence[Chunk], spoken: dict[int, Spoken], tick: Tick) -> list[Transcript]:
        made = np.stack([self._features(chunk) for chunk in batch])
        states = self._model.encode(made)
        tick()
        languages = self._languages(states, batch, spoken)
        prompts = [self._prompt(each.language) for each in languages]
        found = self._model.generate(states, prompts, self._search)
        tick()
        transcripts = []
        for number, (generated, spoke) in enumerate(zip(found, languages, strict=True)):
            generated, text = self._checked(generated, made[number], prompts[number], tick)
            quality = generated.log_prob, generated.no_speech, compression(text)
            transcripts.append((generated, Transcript(text, [], spoke.language, spoke.share, *quality)))
        if self._wanted.words:
            self._align(states, batch, transcripts)
        return [transcript for _, transcript in transcripts]

    def _features(self, chunk: Chunk) -> Array:
        return features(chunk.sound, self._bands) if chunk.features is None else chunk.features

    def _prompt(self, language: str) -> list[int]:
        wanted = self._wanted
        return self._tokens.prompt(language, wanted.task, wanted.before, wanted.hot_words)

    def _languages(self, states: object, batch: Sequence[Chunk], spoken: dict[int, Spoken]) -> list[Spoken]:
        """The language of each chunk: the given one, or the most probable one, of it or of the first of its group."""
        wanted = self._wanted
        if wanted.language or not self._multilingual:
            return [Spoken(wanted.language or "en", 1.0)] * len(batch)
        if wanted.each or any(chunk.group not in spoken for chunk in batch):
            shares = [self._first_known(row) for row in self._model.languages(states)]
            if wanted.each:
                return shares
            for chunk, share in zip(batch, shares, strict=True):
                spoken.setdefault(chunk.group, share)
        return [spoken[chunk.group] for chunk in batch]

    def _first_known(self, row: Sequence[tuple[str, float]]) -> Spoken:
        return next((Spoken(code, share) for code, share in row if self._tokens.knows(code)), Spoken("en", 0.0))

    def _checked(
        self, generated: Generated, feature: Array, prompt: Sequence[int], tick: Tick
    ) -> tuple[Generated, str]:
        """A text and its tokens; none where there is no speech, and another one if it repeats itself."""
        wanted, text = self._wanted, self._tokens.text(generated.tokens)
        if generated.no_speech > wanted.most_silence and generated.log_prob < wanted.least_log_prob:
            return replace(generated, tokens=()), ""
        for penalty, run in _RETRIES:
            if compression(text) <= wanted.most_compression:
                break
            search = replace(self._search, repetition_penalty=penalty, no_repeat=run)
            [other] = self._model.generate(self._model.encode(feature[None]), [prompt], search)
            tick()
            if compression(self._tokens.text(other.tokens)) < compression(text):
                generated, text = replace(other, no_speech=generated.no_speech), self._tokens.text(other.tokens)
        return generated, text

    def _align(self, states: object, batch: Sequence[Chunk], made: Sequence[tuple[Generated, Transcript]]) -> None:
        """Give the transcripts their words; CTranslate2 aligns rows of one language at a time."""
        texts = [[token for token in generated.tokens if token < self._tokens.end] for generated, _ in made]
        frames = [ceil(chunk.seconds) * _FRAMES_PER_S for chunk in batch]
        for language in dict.fromkeys(transcript.language for _, transcript in made):
            aligned = self._model.align(states, self._tokens.start(language, self._wanted.task), texts, frames)
            for number, (_, transcript) in enumerate(made):
                if transcript.language == language and texts[number]:
                    pieces = self._tokens.words(texts[number], language)
                    transcript.words = words_of(aligned[number], pieces)

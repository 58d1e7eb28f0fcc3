"""Whisper's and Silero's real networks beside faster-whisper's own pipeline, on real speech."""

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from engines.operators.speech import Speech
from engines.operators.transcribe import Transcribe
from engines.part import Part, no_tick
from engines.ports import Session
from engines.speech.mel import features
from engines.speech.model import Search, SpeechModel
from engines.speech.tokens import Tokens
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage, parse_pipeline
from tests.cases import fleets
from tests.cli import rigflow
from tests.fleet import Killing
from tests.speech import BASE, RATE, TINY, Array, opened, silence, silero, sound_part, speech, whisper
from tests.whisper_exports import exported

# faster-whisper's dependencies warn; a busy machine takes minutes
pytestmark = [pytest.mark.models, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
PRECISION, FLOAT = "int8_float32", "float32"
TINY_ONNX, BASE_ONNX = "whisper-tiny.en", "whisper-base"
WITHIN_S = 0.04


class Models(NamedTuple):
    """The folder of each network of faster-whisper, and the home folder where they were added."""

    folders: dict[str, Path]
    home: Path

    def open(self, name: str) -> tuple[ModelSpec, Session]:
        return opened(name, self.home)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    pytest.importorskip("faster_whisper")
    home, given = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("given")
    folders = {name: whisper(name, given) for name in (TINY, BASE)}
    folders |= {name: exported(folders[of], given / name) for name, of in {TINY_ONNX: TINY, BASE_ONNX: BASE}.items()}
    added = [rigflow("model", "add", folder, HOME=str(home)) for folder in folders.values()]
    floats = (f"{name}-{FLOAT}" for name in (TINY, BASE))
    for name, folder in zip(floats, folders.values(), strict=False):
        given_card = ("--yes", "--name", name, "--set", f"precision={FLOAT}")
        added.append(rigflow("model", "add", folder, *given_card, HOME=str(home)))
    added.append(rigflow("model", "add", silero(), "--name", "silero-vad", "--yes", HOME=str(home)))
    assert not any(each.returncode for each in added), [each.stderr for each in added]
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(home))
    yield Models(folders, home)
    patch.undo()


def chunked(models: Models, *windows: Array) -> list[Part]:
    """The chunks of speech of windows, a part each, that follow each other."""
    card, session = models.open("silero-vad")
    stage = OperatorStage(kind="speech", name="speech", model="silero-vad")
    starts = np.cumsum([0, *map(len, windows)]) / RATE
    parts = [sound_part([window], [start]) for window, start in zip(windows, starts, strict=False)]
    made = Speech(stage, card).run(parts, session, no_tick)
    assert all(isinstance(part, Part) for part in made), made
    return made  # type: ignore[return-value]


def transcribed(models: Models, name: str, parts: list[Part], batch: int = 8, **options: Any) -> list[Part]:
    card, session = models.open(name)
    stage = OperatorStage(kind="transcribe", name="transcribe", model=name, max_batch=batch, options=options)
    made = Transcribe(stage, card).run(parts, session, no_tick)
    assert all(isinstance(part, Part) for part in made), made
    return made  # type: ignore[return-value]


def texts_of(parts: list[Part]) -> list[str]:
    return [part.arrays["text"].row(n).tobytes().decode() for part in parts for n in range(len(part.meta.pts))]


def words_of(parts: list[Part]) -> list[tuple[str, float, float, float]]:
    words = []
    for part in parts:
        for number in range(len(part.meta.pts)):
            text = part.arrays["text"].row(number).tobytes()
            for start, end, share, first, last in part.arrays["words"].row(number):
                words.append((text[int(first) : int(last)].decode(), start, end, share))
    return words


def check_words(found: list[tuple[str, float, float, float]], segments: list[Any]) -> None:
    wanted = [word for segment in segments for word in segment.words]
    assert [word for word, *_ in found] == [word.word for word in wanted]
    away = [
        max(abs(start - word.start), abs(end - word.end))
        for (_, start, end, _), word in zip(found, wanted, strict=True)
    ]
    assert max(away) <= WITHIN_S
    assert max(abs(share - word.probability) for (*_, share), word in zip(found, wanted, strict=True)) < 1e-3


def reference(models: Models, name: str, sound: Array, **options: Any) -> tuple[list[Any], Any]:
    """The segments of faster-whisper's batched pipeline, and what it says of the sound."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(models.folders[name]), device="cpu", compute_type=PRECISION, cpu_threads=1)
    found, info = BatchedInferencePipeline(model).transcribe(sound, word_timestamps=True, batch_size=8, **options)
    return list(found), info


@pytest.mark.parametrize("options", [{}, {"threshold": 0.3, "min_silence_ms": 500, "pad_ms": 30}, {"longest_s": 5}])
def test_speech_is_where_faster_whisper_finds_it(models: Models, options: dict[str, float]) -> None:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    from engines.speech.vad import runs_of, windows_of

    given = {"threshold": 0.5, "min_silence_ms": 160, "pad_ms": 400, "longest_s": 30} | options
    card, session = models.open("silero-vad")
    operator = Speech(OperatorStage(kind="speech", name="speech", model="silero-vad", options=given), card)
    names = {
        "min_silence_ms": "min_silence_duration_ms",
        "pad_ms": "speech_pad_ms",
        "longest_s": "max_speech_duration_s",
    }
    vad = VadOptions(**{names.get(name, name): value for name, value in given.items()})
    noise = np.random.default_rng(1).normal(0, 0.05, len(speech())).astype(np.float32)
    for sound in (speech(), speech()[: 20 * RATE + 77], speech() + noise, silence(5), silence(1 / RATE)):
        found = operator._probabilities(windows_of(sound), session, no_tick)
        runs = runs_of(found.tolist(), len(sound), operator._rules)
        assert [{"start": run.start, "end": run.end} for run in runs] == get_speech_timestamps(sound, vad)


@pytest.mark.parametrize("name", [TINY, BASE])
def test_words_are_those_of_faster_whisper(models: Models, name: str) -> None:
    """The same sound, chunks of its own finding: texts and words equal, and their times within 40 ms."""
    sound = speech()
    parts = transcribed(models, name, chunked(models, sound))
    segments, info = reference(models, name, sound)
    assert texts_of(parts) == [segment.text for segment in segments]
    check_words(words_of(parts), segments)
    assert "it was the worst of times" in texts_of(parts)[0].lower()
    [part] = parts
    assert [part.arrays["language"].tolist(), info.language] == [[0] * len(part.meta.pts), "en"]
    assert np.allclose(part.arrays["quality"][:, 0], [segment.avg_logprob for segment in segments], atol=1e-5)
    assert np.allclose(part.arrays["quality"][:, 1], [segment.no_speech_prob for segment in segments], atol=1e-5)


@pytest.mark.parametrize("name", [TINY, BASE])
def test_given_chunks_have_the_words_of_faster_whisper(models: Models, name: str) -> None:
    """Chunks that clip_timestamps give: windows of any length, without a stage speech."""
    sound = speech()
    clips = [(1.0, 12.5), (12.5, 31.0), (31.0, 47.2), (48.0, 59.5), (62.0, 90.0)]
    windows = [sound[round(start * RATE) : round(end * RATE)] for start, end in clips]
    parts = transcribed(models, name, [sound_part(windows, [start for start, _ in clips])])
    segments, _ = reference(models, name, sound, clip_timestamps=[{"start": start, "end": end} for start, end in clips])
    assert texts_of(parts) == [segment.text for segment in segments]
    check_words(words_of(parts), segments)


@pytest.mark.parametrize("beam", [1, 5])
def test_words_are_the_same_in_any_batch(models: Models, beam: int) -> None:
    """In int8, beside shorter and longer texts: words, times and probabilities to the last bit."""
    sound = speech()
    clips = [(48.0 + second, 59.5) for second in range(0, 10, 2)] + [(1.0, 28.0), (62.0, 66.0), (31.0, 47.2)]
    windows = [sound[round(start * RATE) : round(end * RATE)] for start, end in clips]
    part = sound_part(windows, [start for start, _ in clips])
    together, alone = (transcribed(models, TINY, [part], batch, beam=beam) for batch in (8, 1))
    assert texts_of(together) == texts_of(alone)
    assert words_of(together) == words_of(alone)
    assert len(words_of(alone)) > 100


@pytest.mark.parametrize(("name", "other"), [(TINY_ONNX, TINY), (BASE_ONNX, BASE)])
def test_onnx_has_the_texts_and_words_of_ctranslate2(models: Models, name: str, other: str) -> None:
    """Greedy tokens, texts of five beams, languages, qualities and times of words, both in float32."""
    sound = speech()
    clips = [(1.0, 12.5), (48.0, 59.5), (62.0, 90.0)]
    windows = [sound[round(start * RATE) : round(end * RATE)] for start, end in clips]
    part = sound_part(windows, [start for start, _ in clips])
    made, wanted = (transcribed(models, each, [part]) for each in (name, f"{other}-{FLOAT}"))
    assert texts_of(made) == texts_of(wanted)
    words = [words_of(each) for each in (made, wanted)]
    for (text, *times, share), (other_text, *other_times, other_share) in zip(*words, strict=True):
        assert text == other_text
        assert max(abs(a - b) for a, b in zip(times, other_times, strict=True)) <= WITHIN_S
        assert abs(share - other_share) < 1e-3
    for array in ("quality", "language", "span"):
        assert np.allclose(made[0].arrays[array], wanted[0].arrays[array], atol=WITHIN_S if array == "span" else 1e-3)
    sounds = np.stack([features(window, 80) for window in [windows[0], silence(2)]])
    found = []
    for model in (name, f"{other}-{FLOAT}"):
        _, session = models.open(model)
        assert isinstance(session, SpeechModel)
        states, tokens = session.encode(sounds), Tokens(session.tokenizer, other == BASE)
        prompts = [tokens.prompt("en", "transcribe")] * len(sounds)
        searches = [
            Search(beam=1, suppressed=tokens.suppressed),
            Search(beam=1, repetition_penalty=1.2, no_repeat=3, suppressed=tokens.suppressed),
            Search(beam=3, patience=2.0, length_penalty=0.5),
            Search(length_penalty=0.0, most_tokens=24, suppressed=tokens.suppressed),
        ]
        texts = [session.generate(states, prompts, search) for search in searches]
        found.append([each.tokens for text in texts for each in text])
    assert found[0] == found[1]


def test_a_model_is_tried_on_a_file_of_sound(models: Models, tmp_path: Path) -> None:
    heard = rigflow("model", "test", TINY, wav_of(tmp_path / "a.wav", speech()), HOME=str(models.home))
    assert "it was the worst of times" in heard.stdout.lower(), heard.stderr
    silent = rigflow("model", "test", TINY, wav_of(tmp_path / "b.wav", silence(1)), HOME=str(models.home))
    assert silent.stdout.endswith("no text\n"), silent.stderr
    refused = rigflow("model", "test", TINY, wav_of(tmp_path / "c.wav", silence(0)), HOME=str(models.home))
    assert refused.stderr.endswith("c.wav has no samples of sound: record it again\n")


def wav_of(path: Path, sound: Array) -> Path:
    """A file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("name", [TINY, TINY_ONNX])
async def test_any_fleet_writes_the_same_subtitles(models: Models, tmp_path: Path, name: str) -> None:
    """One worker, three workers, a worker for each stage, and three of which one is killed: equal bytes."""
    sound = wav_of(tmp_path / "speech.wav", speech()[: 32 * RATE])
    shown = rigflow("pipelines", "show", "transcribe", HOME=str(models.home)).stdout
    for old, new in (
        ("faster-whisper-base", name),
        ("120.0", "15.0"),
        ("halvings = 2", "halvings = 1"),
        ("reach_s = 10.0", "reach_s = 2.0"),
        ("= 8", "= 8\nbeam = 1"),
    ):
        assert old in shown
        shown = shown.replace(old, new)
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(shown + '\n[stage.options]\nfiles = ["srt", "vtt", "json"]\n')
    stages = [("decode",), ("speech",), ("transcribe",), ("encode", "split", "collect")]
    with fleets(tmp_path / "cache", stages) as started:
        [outcome] = await started.answers(pipeline, [sound], tmp_path / "out")
        spec = parse_pipeline(pipeline.read_text(), "p.toml")
        fleet = started.fleets[1]
        [other] = await fleet.run_async(spec, [sound], tmp_path / "killed", Killing(fleet), tmp_path)
    assert outcome.done is not None
    assert other.done is not None
    assert len(outcome.done.files) == 3
    for name in outcome.done.files:
        assert (other.target.parent / name).read_bytes() == (outcome.target.parent / name).read_bytes()
    srt = (outcome.target.parent / f"{outcome.target.name}.srt").read_text()
    assert "it was the worst of times" in " ".join(srt.lower().split())

"""Pipelines of sound by `run` on one worker, on three, and on two of which one is killed; and by NATS alone."""

import json
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.broker import Broker
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.results import Done
from schemas.subjects import HEADER_CONTENT_TYPE
from tests.cases import put, to, written
from tests.fleet import ONE_WORKER, Fleet, Killing
from tests.fronts import f32
from tests.raw_media import sent_raw
from tests.simulated import models_of
from tests.sounds import file_of, voice
from tests.unit.test_model_sounds import CARD, detector
from workers.definitions import register

RATE, SECONDS = 16000, 41.3


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as fleet:
        yield fleet


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    """The same sound in files of three kinds."""
    sound = voice(SECONDS, RATE)
    files = {
        "talk.wav": file_of(sound, RATE),
        "talk.mp3": file_of(sound, RATE, "mp3", "libmp3lame", 64000),
        "talk.mkv": file_of(voice(SECONDS, 44100, channels=2), 44100, "matroska", "flac"),
    }
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    return [tmp_path / name for name in files]


def pipeline(folder: Path, encode: str = "jsonl") -> PipelineSpec:
    """A model like Silero's, whose state is half forgotten at each window."""
    put(folder, detector(), CARD.replace('"stateN" }', '"stateN", warm_up = 64 }'), "vad")
    path = written(folder, to(encode, 'model = "vad"'), media='["audio"]', name="heard")
    return parse_pipeline(path.read_text(), path.name)


def loudness(samples: np.ndarray) -> list[float]:
    """What the model says, by NumPy alone."""
    padded = np.concatenate([np.zeros(64, f32), samples, np.zeros(-len(samples) % 512, f32)])
    state, found = 0.0, []
    for start in range(0, len(padded) - 64, 512):
        state = (state + float(np.sqrt(np.sum(padded[start : start + 576].astype(np.float64) ** 2)))) / 2
        found.append(state / RATE)
    return found


def test_a_model_of_sound_gives_equal_results_on_any_fleet(one: Fleet, tmp_path: Path, media: list[Path]) -> None:
    spec = pipeline(tmp_path)
    found: dict[str, list[tuple[bytes, str]]] = {}
    with Fleet(ONE_WORKER * 3, tmp_path / "cache") as three:
        runs = {"one": one.run(spec, media, tmp_path / "one", folder=tmp_path)}
        runs["three, one of them killed"] = three.run(spec, media, tmp_path / "three", Killing(three), tmp_path)
    for name, outcomes in runs.items():
        done = [outcome.done for outcome in outcomes if outcome.done]
        assert [(each.failures, each.lost, each.segments) for each in done] == [((), 0, 3)] * 3, outcomes
        texts = [Path(f"{outcome.target}.jsonl").read_bytes() for outcome in outcomes]
        found[name] = [(text, each.digest) for text, each in zip(texts, done, strict=True)]
    assert found["one"] == found["three, one of them killed"]
    rows = [json.loads(line) for line in found["one"][0][0].splitlines()]
    assert [row["time"] for row in rows] == [round(512 / RATE * number, 6) for number in range(len(rows))]
    with wave.open(str(media[0])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(f32) / 32768
    expected = loudness(samples)
    np.testing.assert_allclose([row["output"][0] for row in rows], expected, rtol=1e-5)
    assert len(rows) == -(-len(samples) // 512)


async def test_raw_samples_and_an_mp3_are_taken_from_a_subject(one: Fleet, tmp_path: Path, media: list[Path]) -> None:
    spec = pipeline(tmp_path, "npz")
    sound = np.rint(voice(21.0, RATE)[0] * 32767).astype(np.int16)
    async with Broker.connected(one.settings, name="test") as broker:
        spec = await register(broker, one.settings, spec, models_of(spec, tmp_path))

        async def heard(job: str, body: bytes, kind: str) -> tuple[Done, list[float]]:
            received = await sent_raw(broker, spec, job, body, {HEADER_CONTENT_TYPE: kind})
            return received.done, [float(value) for array in received.arrays for value in np.frombuffer(array, f32)]

        done, big = await heard("big", sound.astype(">i2").tobytes(), f"audio/L16; rate={RATE}; channels=1")
        assert (done.failures, done.lost) == ((), 0)
        _, little = await heard("little", sound.astype("<i2").tobytes(), f"audio/pcm; rate={RATE}")
        assert big == little
        expected = loudness(sound.astype(f32) / 32768)
        np.testing.assert_allclose(big, expected, rtol=1e-5)
        done, answers = await heard("mp3", media[1].read_bytes(), "")
        assert (done.failures, done.lost, len(answers)) == ((), 0, -(-int(SECONDS * RATE) // 512))
        done, answers = await heard("none", b"\0" * 99, "audio/L16")
        assert answers == []
        assert "content type audio/L16: rate is no number from 1 to 768000" in done.failures[0]

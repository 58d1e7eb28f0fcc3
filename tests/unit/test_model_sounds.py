"""Models of sound: their cards, and what they make of a file, beside a plain loop of NumPy and ONNX Runtime."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from engines.models.card_text import card_toml
from engines.models.sounds import read_sound, windows_of
from engines.outputs.hearing import answers_of, heard
from schemas.errors import MediaError, ModelError
from schemas.model import SoundSpec, StateSpec
from tests.fronts import f32, node, plainly, read
from tests.onnx_graphs import FLOAT, INT64, model_of, value
from tests.weights import weights

CARD = """
[[inputs]]
name = "input"
rate = 16000
samples = 512
context = 64
[[inputs]]
name = "sr"
value = 16000
[[inputs]]
name = "state"
state = { output = "stateN" }
"""


SOUND = SoundSpec(rate=16000, samples=512, context=64)


def detector(samples: int | str = "samples", dtype: int = FLOAT) -> bytes:
    """A graph with the ends of Silero's: the loudness so far, which fades, and the rate in kHz beside it."""
    nodes = [
        node("Cast", "input", "floats", to=FLOAT),
        node("ReduceL2", "floats", "loud", axes=[1], keepdims=1),
        node("Add", "state loud", "sum"),
        node("Mul", "sum half", "stateN"),
        node("Cast", "sr", "rate", to=FLOAT),
        node("Div", "stateN rate", "output"),
    ]
    half = np.float32([0.5])
    inputs = [value("input", dtype, ["N", samples]), value("state", FLOAT, [1, 1]), value("sr", INT64, [])]
    outputs = [value("output", FLOAT, [1, 1]), value("stateN", FLOAT, [1, 1])]
    return model_of(nodes, inputs, outputs, (numpy_helper.from_array(half, "half"),))


def spoken(path: Path, seconds: float = 1.7, rate: int = 16000) -> np.ndarray:
    """A file of 16 bits, tones that come and go; its samples as floats."""
    time = np.arange(int(seconds * rate)) / rate
    tones = np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 1.5 * time) ** 2
    whole = np.rint(tones * 12000).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(whole.tobytes())
    return whole.astype(np.float32) / 32768


def in_turn(body: bytes, samples: np.ndarray, state: np.ndarray) -> list[float]:
    """As Silero's own loop does: 64 samples of the chunk before, and 512 new ones."""
    context, found = np.zeros(64, f32), []
    for start in range(0, len(samples), 512):
        chunk = np.zeros(512, f32)
        chunk[: len(samples[start : start + 512])] = samples[start : start + 512]
        made = plainly(body, input=np.concatenate([context, chunk])[None], state=state, sr=np.array(16000))
        context, state = chunk[-64:], made["stateN"]
        found.append(float(made["output"][0, 0]))
    return found


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.models)])
def test_a_file_of_sound_is_answered_as_by_a_plain_loop(tmp_path: Path, real: bool) -> None:
    samples = spoken(tmp_path / "a.wav")
    body = weights("silero_vad.onnx").read_bytes() if real else detector()
    spec, made = read(body, CARD)
    expected = in_turn(body, samples, np.zeros((2, 1, 128) if real else (1, 1), f32))
    windows = windows_of(read_sound(tmp_path / "a.wav", SOUND), SOUND)
    assert windows.shape == (54, 576)
    found = answers_of(spec, made, windows)
    assert set(found) == {"output"}
    np.testing.assert_allclose(found["output"][:, 0], expected, rtol=1e-5, atol=1e-6)
    lines = list(heard(spec, made, tmp_path / "a.wav"))
    assert lines[0] == "54 windows of 0.032 s"
    assert f"highest at {int(np.argmax(expected)) * 0.032:.2f} s" in lines[1]


def test_a_file_of_another_rate_is_resampled(tmp_path: Path) -> None:
    spoken(tmp_path / "a.wav", seconds=1.0, rate=44100)
    found = read_sound(tmp_path / "a.wav", SoundSpec(rate=16000, samples=512))
    wanted = spoken(tmp_path / "b.wav", seconds=1.0, rate=16000)
    assert abs(len(found) - 16000) <= 32
    assert np.abs(found[200:15800] - wanted[200:15800]).max() < 0.01


def test_what_has_no_sound_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(MediaError, match=r"a\.wav is no video, sound or picture that rigflow reads"):
        read_sound(tmp_path / "a.wav", SoundSpec(rate=16000, samples=512))
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg")
    with pytest.raises(MediaError, match=r"a\.jpg has no sound: give a file with sound"):
        read_sound(tmp_path / "a.jpg", SoundSpec(rate=16000, samples=512))


def test_a_card_of_sound_travels_and_is_written_again() -> None:
    spec, body = read(detector(), CARD)
    tensor = next(each for each in spec.inputs if each.name == "input")
    assert (tensor.dtype, tensor.shape) == ("float32", ("N", 576))
    assert tensor.sound == SOUND
    assert next(each.state for each in spec.inputs if each.name == "state") == StateSpec(output="stateN")
    again, _ = read(body, card_toml(spec))
    assert again.inputs == spec.inputs
    assert again.identity == spec.identity


@pytest.mark.parametrize(
    ("card", "graph", "words"),
    [
        ("rate = 16000", detector(), "input `input`, rate: it is sound, and has no samples"),
        ("samples = 512", detector(), "input `input`, samples: it is sound, and has no rate"),
        ("rate = 16000\nsamples = 0", detector(), "samples: should be greater than or equal to 1"),
        ("rate = 16000\nsamples = 512", detector(576), "samples: 512 with 0 of context, and its graph takes 576"),
        ("rate = 16000\nsamples = 512\nmean = 3", detector(), "input `input`: rate and mean"),
        ("rate = 16000\nsamples = 512\nvalue = 3", detector(), "input `input`: value and rate"),
        ("rate = 16000\nsamples = 512", detector(dtype=TensorProto.INT32), "int32 [N, samples] takes no sound"),
    ],
)
def test_a_card_of_sound_that_contradicts_itself_or_the_graph_is_refused(card: str, graph: bytes, words: str) -> None:
    others = CARD[CARD.index('[[inputs]]\nname = "sr"') :]
    with pytest.raises(ModelError, match=re.escape(words)):
        read(graph, f'[[inputs]]\nname = "input"\n{card}\n{others}')

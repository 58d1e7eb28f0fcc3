"""ncnn's files become ONNX files that compute the same."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines.models.ncnn import convert
from schemas.errors import ModelError

RANDOM = np.random.default_rng(5)
# a picture doubled: what a small network adds to its repeated pixels
PARAM = """7767517
8 9
Input input 0 1 data
Split split 1 2 data data_a data_b
Convolution conv1 1 1 data_a c1 0=8 1=3 4=1 5=1 6=216 9=2 -23310=1,2.000000e-01
PReLU prelu 1 1 c1 p1 0=8
Convolution conv2 1 1 p1 c2 0=12 1=1 5=1 6=96
PixelShuffle shuffle 1 1 c2 s 0=2
Interp up 1 1 data_b u 0=1 1=2.0 2=2.0
Eltwise sum 2 1 s u output 0=1 -23301=2,5.000000e-01,1.000000e+00
"""
SHAPES = ((8, 3, 3, 3), (12, 8, 1, 1))


def numbers() -> dict[str, np.ndarray]:
    first, second = (RANDOM.normal(0, 0.3, shape).astype(np.float32) for shape in SHAPES)
    biases = [RANDOM.normal(0, 0.1, shape[0]).astype(np.float32) for shape in SHAPES]
    slopes = RANDOM.random(8).astype(np.float32)
    return {"first": first, "second": second, "bias1": biases[0], "bias2": biases[1], "slopes": slopes}


def tagged(weights: np.ndarray, half: bool) -> bytes:
    if not half:
        return bytes(4) + weights.tobytes()
    body = weights.astype("<f2").tobytes()
    return (0x01306B47).to_bytes(4, "little") + body + bytes(-len(body) % 4)


def written(folder: Path, given: dict[str, np.ndarray], half: bool, param: str = PARAM) -> tuple[Path, Path]:
    body = tagged(given["first"], half) + given["bias1"].tobytes() + given["slopes"].tobytes()
    body += tagged(given["second"], half) + given["bias2"].tobytes()
    (folder / "net.param").write_text(param)
    (folder / "net.bin").write_bytes(body)
    return folder / "net.param", folder / "net.bin"


def computed(picture: np.ndarray, given: dict[str, np.ndarray], half: bool) -> np.ndarray:
    """What the network gives, by loops of NumPy in float64."""
    first, second = (given[name].astype(np.float16 if half else np.float32) for name in ("first", "second"))
    _, height, width = picture.shape
    padded = np.pad(picture.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    found = np.zeros((8, height, width))
    for y in range(height):
        for x in range(width):
            found[:, y, x] = (first.astype(np.float64) * padded[:, y : y + 3, x : x + 3]).sum((1, 2, 3))
    found += given["bias1"][:, None, None]
    found = np.where(found > 0, found, 0.2 * found)
    found = np.where(found > 0, found, given["slopes"][:, None, None] * found)
    found = np.einsum("oi,iyx->oyx", second[:, :, 0, 0].astype(np.float64), found) + given["bias2"][:, None, None]
    out = np.zeros((3, 2 * height, 2 * width))
    for channel in range(3):
        for row in range(2):
            for column in range(2):
                out[channel, row::2, column::2] = found[channel * 4 + row * 2 + column]
    return 0.5 * out + picture.repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize("half", [False, True])
def test_a_network_computes_what_its_layers_say(tmp_path: Path, half: bool) -> None:
    given = numbers()
    body = convert(*written(tmp_path, given, half))
    session = onnxruntime.InferenceSession(body)
    assert [each.shape for each in session.get_inputs()] == [["n", 3, "h", "w"]]
    picture = RANDOM.random((3, 5, 7)).astype(np.float32)
    (found,) = session.run(["output"], {"input": picture[None]})
    np.testing.assert_allclose(found[0], computed(picture, given, half), atol=1e-5)


def test_equal_networks_have_equal_files(tmp_path: Path) -> None:
    files = written(tmp_path, numbers(), True)
    assert convert(*files) == convert(*files)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("7767517", "7767516", "is not ncnn's text format: give the .param"),
        ("PReLU prelu", "Attention prelu", "has a layer Attention, which no ESRGAN-like network has"),
        ("0=8 1=3", "0=16 1=3", "is shorter than its .param says|int8|has .* bytes, its .param"),
        ("1 1 data_a", "1 1 missing", "nothing makes missing before layer conv1"),
        ("9=2", "9=7", "layer conv1 has activation 7"),
        ("0=8\n", "0=x\n", "is not ncnn's text format"),
        ("0=1 1=2.0", "0=9 1=2.0", "layer up resizes to a fixed size"),
        ("Eltwise sum 2 1 s u", "Eltwise sum 1 1 s", "has 2 outputs, and one is wanted"),
        ("6=96", "6=9600000000000", "is shorter than"),
        ("Input input 0 1 data", "Input input", "is not ncnn's text format"),
    ],
)
def test_what_is_no_such_network_is_refused_in_a_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PARAM
    files = written(tmp_path, numbers(), True, PARAM.replace(old, new))
    with pytest.raises(ModelError, match=words) as caught:
        convert(*files)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    param, weights = written(tmp_path, numbers(), True)
    whole = weights.read_bytes()
    for body, words in ((whole[:-3], "is shorter"), (whole + b"abcd", "has 7"), (b"\1\0\0\0" + whole[4:], "quantised")):
        weights.write_bytes(body)
        with pytest.raises(ModelError, match=words):
            convert(param, weights)
    weights.unlink()
    with pytest.raises(ModelError, match=r"cannot read .*net\.bin"):
        convert(param, weights)


def test_realesrgan_equals_the_onnx_file_of_its_weights() -> None:
    folder = Path(os.environ.get("TEST_WEIGHTS", "/nonexistent"))
    param, wanted = folder / "realesr-animevideov3-x4.param", folder / "realesr-animevideov3-x4.onnx"
    if not param.is_file():
        pytest.skip("no realesr-animevideov3-x4.param in TEST_WEIGHTS")
    picture = RANDOM.random((1, 3, 24, 32)).astype(np.float32)
    found, expected = (
        onnxruntime.InferenceSession(body).run(None, {"input": picture})[0]
        for body in (convert(param, param.with_suffix(".bin")), wanted.read_bytes())
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)

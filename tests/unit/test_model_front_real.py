"""Real models and their cards, beside plain NumPy and ONNX Runtime on the files as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.models.catalogue import load_model
from schemas.errors import ModelError
from schemas.model import StateSpec
from schemas.picture import PictureSpec
from tests.fronts import NANODET, Array, f32, plainly, planes, read, run
from tests.weights import weights

pytestmark = pytest.mark.models

SHIFTED = "mean = 127.5\nstd = 128"


def shifted(x: Array) -> Array:
    return (x - f32(127.5)) / f32(128)


def as_nanodet(x: Array) -> Array:
    return planes((x[..., ::-1] - f32([103.53, 116.28, 123.675])) / f32([57.375, 57.12, 58.395]))


@pytest.mark.parametrize(
    ("name", "given", "card", "expected", "fed", "rows"),
    [
        ("nanodet_g_416.onnx", "images", f'{NANODET}\nfit = "letterbox"', as_nanodet, (1, 416, 416, 3), 1),
        (
            "efficientnet-lite0.onnx",
            "input",
            "mean = 127\nstd = 128",
            lambda x: planes((x - f32(127)) / f32(128)),
            ("batch", 224, 224, 3),
            2,
        ),
        ("realesr-animevideov3-x4.onnx", "input", "", lambda x: planes(x * f32(1 / 255)), ("n", "h", "w", 3), 2),
        ("mtcnn/pnet.onnx", "input_1", SHIFTED, shifted, ("N", "M1", "M2", 3), 2),
        ("mtcnn/rnet.onnx", "input_2", SHIFTED, shifted, ("N", 24, 24, 3), 3),
        ("mtcnn/onet.onnx", "input_3", SHIFTED, shifted, ("N", 48, 48, 3), 3),
    ],
)
def test_a_real_model_of_pictures_answers_as_plain_onnx_runtime_does(
    name: str, given: str, card: str, expected: Callable[[Array], Array], fed: tuple[Any, ...], rows: int
) -> None:
    body = weights(name).read_bytes()
    model = read(body, f'[[inputs]]\nname = "{given}"\n{card}\n' if card else "")
    [tensor] = model[0].inputs
    assert (tensor.name, tensor.dtype, tensor.shape) == (given, "uint8", fed)
    assert isinstance(tensor.picture, PictureSpec)
    height, width = (size if isinstance(size, int) else free for size, free in zip(fed[1:3], (30, 44), strict=True))
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([np.stack([x * 5 + 40 * k, y * 3, x + y], -1) for k in range(rows)]).astype(np.uint8)
    answers = plainly(body, **{given: expected(pixels)})
    found = run(model, **{given: pixels})
    assert set(found) == set(answers)
    for output, array in answers.items():
        np.testing.assert_allclose(found[output], array, rtol=0, atol=1e-4, err_msg=output)


def test_a_real_model_with_a_state_and_a_constant() -> None:
    """Silero VAD: 64 samples of context and 512 new ones a run, at 16 kHz."""
    path = weights("silero_vad.onnx")
    card = """
    [[inputs]]
    name = "sr"
    value = 16000
    [[inputs]]
    name = "state"
    state = { output = "stateN" }
    [[inputs]]
    name = "input"
    shape = [1, 576]
    """
    spec, body = read(path.read_bytes(), card)
    assert [(tensor.name, tensor.state) for tensor in spec.inputs] == [
        ("input", None),
        ("state", StateSpec(output="stateN")),
    ]
    sound = np.random.default_rng(0).normal(size=(3, 1, 576)).astype(f32) * f32(0.1)
    state = expected = np.zeros((2, 1, 128), f32)
    for piece in sound:
        found = run((spec, body), input=piece, state=state)
        answers = plainly(path.read_bytes(), input=piece, state=expected, sr=np.array(16000))
        state, expected = found["stateN"], answers["stateN"]
        np.testing.assert_allclose(found["output"], answers["output"], rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match="input `sr` has no batch dimension: give it a value in its model card"):
        load_model(path)

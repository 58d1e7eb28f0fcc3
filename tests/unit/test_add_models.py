"""What `rigflow model add` finds out by itself about real models; `make test-models` prints it as a table."""

from typing import Any

import pytest

from engines.models.companions.base import Sure
from engines.models.proposal import propose
from tests.weights import HASHES, weights

pytestmark = pytest.mark.models
IN = "inputs.0."
# what a person who knows the model would write; None: no line
KNOWN: dict[str, dict[str, Any]] = {
    "nanodet_g_416.onnx": {
        f"{IN}colours": "bgr",
        f"{IN}layout": "nchw",
        f"{IN}size": [416, 416],
        f"{IN}scale": 1.0,
        f"{IN}mean": [103.53, 116.28, 123.675],
        f"{IN}std": [57.375, 57.12, 58.395],
        f"{IN}fit": "letterbox",
        "heads.0.kind": "detect",
        "heads.0.decoder": "nanodet",
        "heads.0.reg_max": 10,
    },
    "efficientnet-lite0.onnx": {
        f"{IN}colours": "rgb",
        f"{IN}layout": "nchw",
        f"{IN}size": [224, 224],
        f"{IN}mean": 127.0,
        f"{IN}std": 128.0,
        f"{IN}fit": "crop",
        f"{IN}short_side": 256,
        "heads.0.kind": "classify",
        "heads.0.activation": "softmax",
    },
    "realesr-animevideov3-x4.onnx": {
        f"{IN}colours": "rgb",
        f"{IN}layout": "nchw",
        f"{IN}size": None,
        f"{IN}scale": 1 / 255,
        f"{IN}mean": None,
        f"{IN}tile": [264, 264],
        f"{IN}overlap": 18,
        "heads.0.kind": "image",
        "heads.0.range": [0.0, 1.0],
    },
    "silero_vad.onnx": {
        "inputs.0.rate": 16000,
        "inputs.0.samples": 512,
        "inputs.0.context": 64,
        "inputs.1.state": {"output": "stateN"},
        "inputs.2.value": 16000,
        "heads.0.kind": None,
    },
    **{
        f"mtcnn/{name}.onnx": {
            f"{IN}layout": "nwhc",
            f"{IN}colours": "rgb",
            f"{IN}mean": 127.5,
            f"{IN}std": 128.0,
            "heads.0.kind": kind,
            "heads.0.decoder": "mtcnn",
            "heads.0.transposed": True if name == "pnet" else None,
        }
        for name, kind in (("pnet", "detect"), ("rnet", "detect"), ("onet", "keypoints"))
    },
}


WITH_CARDS = ("nanodet", "realesr", "mtcnn")  # which rigflow has cards of: nothing is left to ask


def test_every_real_model_is_known_here() -> None:
    assert KNOWN.keys() == HASHES.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_the_card_is_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights(name)
    lines = propose(path, path.read_bytes()).lines
    with capsys.disabled():
        print(f"\n| {name} | value | sure | why |\n| --- | --- | --- | --- |")
        for line in lines:
            print(f"| {line.field} | {str(line.value)[:40]} | {line.sure.name} | {line.why} |")
    found = {line.field: line.value for line in lines}
    assert {field: found.get(field) for field in KNOWN[name]} == KNOWN[name]
    assert all(line.sure is not Sure.certain for line in lines if line.why.startswith(("what", "usual", "known by")))
    assert all(line.sure is Sure.certain for line in lines) or not name.startswith(WITH_CARDS)

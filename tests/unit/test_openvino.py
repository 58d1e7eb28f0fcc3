"""The backend openvino: the answers of ONNX Runtime, rows that do not depend on their batch, and what it refuses."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from engines.backends.openvino import OpenVino
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.openvino import OpenVinoSession
from engines.models.graph import FLOAT, Graph
from schemas.errors import ModelError, PluginMissing
from schemas.model import ModelSpec, TensorSpec
from schemas.settings import Settings

PIXELS = np.random.default_rng(5).integers(0, 256, (3, 20, 24, 3), np.uint8)


def network() -> tuple[bytes, ModelSpec]:
    """`pixels [N, H, W, 3]` uint8 -> `wide [N, 16, H, W]` float32: two convolutions, each with PReLU."""
    random, graph = np.random.default_rng(0), Graph()
    value = graph.op("Transpose", graph.op("Cast", "pixels", to=FLOAT), perm=[0, 3, 1, 2])
    for into, name in ((3, ""), (16, "wide")):
        kernel = random.standard_normal((16, into, 3, 3)).astype(np.float32) / 100
        slope = np.full((16, 1, 1), 0.2, np.float32)
        value = graph.op("PRelu", graph.op("Conv", value, kernel, pads=[1] * 4), slope, result=name)
    given = TensorSpec(name="pixels", dtype="uint8", shape=("N", "H", "W", 3))
    made = TensorSpec(name="wide", dtype="float32", shape=("N", 16, "H", "W"))
    spec, body = graph.finish(ModelSpec(name="tiny", inputs=(given,), outputs=(made,), sha256=""))
    return body, spec


def opened(body: bytes, spec: ModelSpec) -> OpenVinoSession:
    pytest.importorskip("openvino")
    session = OpenVino(Settings()).open(body, spec, SimpleNamespace(gpu=None))  # type: ignore[arg-type]
    assert isinstance(session, OpenVinoSession)
    return session


@pytest.mark.models
def test_it_answers_as_onnx_runtime_and_each_row_as_alone() -> None:
    session, other = opened(*network()), OnnxRuntimeSession(*network())
    session.warm_up()
    answer = session.run({"pixels": PIXELS})["wide"]
    np.testing.assert_allclose(answer, other.run({"pixels": PIXELS})["wide"], rtol=1e-4, atol=1e-4)
    for row in range(3):
        np.testing.assert_array_equal(answer[row], session.run({"pixels": PIXELS[row : row + 1]})["wide"][0])
    kept = answer.copy()
    session.run({"pixels": PIXELS[:, ::-1]})
    np.testing.assert_array_equal(answer, kept)  # it belongs to the caller
    with pytest.raises(ModelError, match="expected uint8"):
        session.run({"pixels": PIXELS.astype(np.float32)})
    session.close()


@pytest.mark.models
def test_what_it_cannot_load_is_one_line() -> None:
    body, spec = network()
    with pytest.raises(ModelError, match=r"cannot be loaded by openvino: .*onnxruntime"):
        opened(b"no graph", spec)
    with pytest.raises(ModelError, match="has no output `other`"):
        opened(body, spec.model_copy(update={"outputs": (spec.outputs[0].model_copy(update={"name": "other"}),)}))


def test_it_is_refused_where_it_is_not_installed_and_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        PluginMissing, match=r"needs the package openvino, which is not installed here: .*rigflow\[openvino\]"
    ):
        OpenVinoSession(*network())
    assert OpenVino(Settings()).refuses(SimpleNamespace(gpu=object()))  # type: ignore[arg-type]

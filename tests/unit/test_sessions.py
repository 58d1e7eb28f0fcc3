"""ONNX Runtime sessions: which models and inputs they refuse, and what they say of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.measure import rss_bytes
from engines.inference import onnxruntime
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.reasons import one_line
from engines.models.catalogue import builtin_model, load_model
from engines.models.graph import FLOAT, IR_VERSION, OPSET, Graph
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from tests.unit.test_inference import card, tensor


@pytest.fixture
def named() -> tuple[ModelSpec, bytes]:
    graph = Graph()
    graph.op("Cast", "x", to=FLOAT, result="y")
    return graph.finish(card([tensor("x", "uint8", "N", 2)], [tensor("y", "float32", "N", 2)]))


def test_session_says_which_input_is_wrong(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    session = OnnxRuntimeSession(body, spec)
    session.warm_up()
    with pytest.raises(ModelError, match=r"`tiny`, input `x`: expected uint8 \[N, 2\], found float32 \[1, 3\]"):
        session.run({"x": np.zeros((1, 3), np.float32)})
    with pytest.raises(ModelError, match=r"got no input `x`, only `z`"):
        session.run({"z": np.zeros((1, 2), np.uint8)})
    session.close()
    session.close()


def test_session_takes_arrays_that_are_not_contiguous_or_read_only(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    x = np.frombuffer(bytes(range(12)), np.uint8).reshape(2, 6).T[:, ::-1]
    np.testing.assert_array_equal(OnnxRuntimeSession(body, spec).run({"x": x})["y"], x)


@pytest.mark.parametrize("body", [b"", b"not a model", b"\x08\x08"])
def test_bad_model_is_one_line(named: tuple[ModelSpec, bytes], body: bytes) -> None:
    with pytest.raises(ModelError, match="model `tiny` cannot be loaded") as caught:
        OnnxRuntimeSession(body, named[0])
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert caught.value.hint


def test_truncated_model_is_a_bad_model(named: tuple[ModelSpec, bytes]) -> None:
    spec, body = named
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxRuntimeSession(body[: len(body) // 2], spec)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([tensor("z", "uint8", "N", 2)], [], "has no input `z`, only `x`"),
        ([tensor("x", "uint8", "N", 3)], [], r"its model card says uint8 \[N, 3\], its graph uint8 \[N, 2\]"),
        ([tensor("x", "float32", "N", 2)], [], r"its model card says float32 \[N, 2\]"),
        ([], [], "wants input `x`, and its model card lacks it"),
        ([tensor("x", "uint8", "N", 2)], [tensor("q", "float32", "N")], "has no output `q`, only `y`"),
    ],
)
def test_card_and_graph_must_agree(
    named: tuple[ModelSpec, bytes], inputs: list[TensorSpec], outputs: list[TensorSpec], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        OnnxRuntimeSession(named[1], card(inputs, outputs))


@pytest.mark.parametrize(
    ("kind", "attributes", "element", "shape", "words"),
    [
        ("Cast", {"to": onnx.TensorProto.STRING}, onnx.TensorProto.STRING, ["N"], "output `y` is text"),
        ("Cast", {"to": onnx.TensorProto.BFLOAT16}, onnx.TensorProto.BFLOAT16, ["N"], "output `y` is bfloat16"),
        ("SequenceConstruct", {}, None, ["N"], "output `y` is seq"),
        ("ReduceMean", {"keepdims": 0}, onnx.TensorProto.FLOAT, [], "output `y` has no batch dimension"),
    ],
)
def test_an_output_that_cannot_travel_is_refused_when_the_model_is_loaded(
    tmp_path: Path, kind: str, attributes: dict[str, int], element: int | None, shape: list[int | str], words: str
) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
    tensor_type = onnx.helper.make_tensor_type_proto(element or onnx.TensorProto.FLOAT, shape)
    y = onnx.helper.make_value_info("y", tensor_type if element else onnx.helper.make_sequence_type_proto(tensor_type))
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, ["x"], ["y"], **attributes)], "odd", [x], [y])
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    path = tmp_path / "odd.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words):
        load_model(path)


_LOG = "[ONNXRuntimeError] : 1 : FAIL : "
_FILE = "/onnxruntime_src/onnxruntime/core/"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed to load model because protobuf parsing failed.",
            "it is not a whole ONNX file",
        ),
        (
            f"{_LOG}{_FILE}graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const std::map<int(int), "
            "char>&) Unsupported model IR version: 99, max supported IR version: 14",
            "Unsupported model IR version: 99, max supported IR version: 14",
        ),
        (
            f'{_LOG}Load model from /x/m.onnx failed:This is an invalid model. In Node, ("n", Foo, "", -1) : '
            '("x": tensor(float),) -> ("y": tensor(float),) , Error No Op registered for Foo',
            "Foo `n`: No Op registered for Foo",
        ),
        (f"{_LOG}Node () Op (Add) [ShapeInferenceError] Incompatible dimensions", "Add: Incompatible dimensions"),
        (
            f"{_LOG}Non-zero status code returned while running Reshape node. Name:'' Status Message: {_FILE}tensor/"
            "reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) "
            "a == b::c was false. The input tensor cannot be reshaped\nto the requested shape.",
            "Reshape: The input tensor cannot be reshaped to the requested shape.",
        ),
        (
            f"{_LOG}Exception during initialization: {_FILE}optimizer/initializer.cc:51 onnxruntime::Initializer::"
            f"Initializer(const onnx::TensorProto&) {_LOG}tensorprotoutils.cc:1730 ValidateSize Initializer 'c': "
            "raw_data size (4 bytes) does not match",
            "Initializer 'c': raw_data size (4 bytes) does not match",
        ),
        (
            "Got invalid dimensions for input: x for the following indices index: 0 Got: 10 Expected: 1 Please fix "
            "either the inputs/outputs or the model.",
            "Got invalid dimensions for input: x for the following indices index: 0 Got: 10 Expected: 1",
        ),
        ("std::bad_alloc", "it needs more memory than there is"),
        ("", "RuntimeError"),
        ("x" * 900, "x" * 299 + "…"),
    ],
)
def test_of_what_onnx_runtime_says_the_reason_is_left(output: str, reason: str) -> None:
    assert one_line(RuntimeError(output)) == reason


def test_a_large_model_is_loaded_as_a_file(monkeypatch: pytest.MonkeyPatch, named: tuple[ModelSpec, bytes]) -> None:
    monkeypatch.setattr(onnxruntime, "_LARGE_BYTES", 0)
    spec, body = named
    x = np.ones((3, 2), np.uint8)
    np.testing.assert_array_equal(OnnxRuntimeSession(body, spec).run({"x": x})["y"], x)


def test_memory_that_a_large_frame_took_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "GIVE_BACK_S", 0.0)  # at every run
    monkeypatch.setattr(onnxruntime.ARENA, "_due_s", 0.0)
    upscale, other = (
        OnnxRuntimeSession(model, spec) for spec, model in map(builtin_model, ("lanczos2x", "shotchange"))
    )
    other.warm_up()
    before = rss_bytes([os.getpid()])
    upscale.run({"plane": np.zeros((1, 2160, 3840), np.uint8)})  # takes 400 MiB
    other.warm_up()  # by whatever runs next, of any model
    assert rss_bytes([os.getpid()]) - before < 100 << 20
    upscale.close()
    other.close()


def test_no_telemetry_reports_the_models_that_run_here(tmp_path: Path) -> None:
    """ONNX Runtime keeps a device's id and its reports in the home folder, where it makes any."""
    code = "from engines.inference import onnxruntime; import onnxruntime as runtime; runtime.SessionOptions()"
    inherited = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], env=inherited | {"HOME": str(tmp_path)}, timeout=60, check=True)
    assert not list(tmp_path.iterdir())

"""Engines: converted, built for GPUs that are not here, kept, tested, refused."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from engines.backends.tensorrt import TensorRtRtx
from engines.building.agreement import compare, demand, described
from engines.building.builder import build_plan
from engines.building.convert import bytes_at_ends
from engines.building.engine import Recipe, profiles_of
from engines.building.gpus import advised, check_precision, parse_targets, plans_for
from engines.building.refusals import refused
from engines.building.store import EngineStore
from engines.inference.bindings import installed
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.models.graph import Graph
from engines.part import Array
from engines.probe_rows import probe_rows
from schemas.engine import EngineSpec, Precision, Profile
from schemas.errors import ModelError, UsageError
from schemas.model import ModelSpec, TensorSpec
from schemas.settings import Settings
from tests.nets import kept_engine, resnet, upscaler, x3d

NEWER = ("sm86", "sm89", "sm120")
NETS: dict[str, tuple[Callable[[], tuple[ModelSpec, bytes]], dict[str, tuple[int, int, int]]]] = {
    "resnet": (resnet, {}),
    "x3d_s": (x3d, {}),
    "upscaler": (upscaler, {"H": (16, 64, 720), "W": (16, 64, 1280)}),
}
TARGET_BITS = {"sm75": 1, "sm86": 4, "sm89": 8, "sm120": 16}  # byte 32 of a plan of TensorRT-RTX

rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")


def noise(count: int) -> list[dict[str, Array]]:
    random = np.random.default_rng(3)
    return [{"pixels": random.integers(0, 255, (2, 64, 64, 3), np.uint8)} for _ in range(count)]


def recipe(name: str, precision: Precision) -> Recipe:
    net, ranges = NETS[name]
    return Recipe.make(*net(), precision, ranges, noise(3) if precision == "int8" else ())


def build_for(name: str, precision: Precision, targets: tuple[str, ...]) -> tuple[EngineSpec, bytes]:
    made = recipe(name, precision)
    return made.build(made.basis("tensorrt_rtx", targets))


# which GPUs, which precision


def test_gpus_are_named_as_people_name_them() -> None:
    assert parse_targets("sm120, 8.6,sm_75,86") == ("sm75", "sm86", "sm120")
    assert parse_targets("all") == ("sm75", *NEWER)
    with pytest.raises(UsageError, match="rtx3090 is no kind of GPU"):
        parse_targets("rtx3090")


def test_turing_has_a_plan_of_its_own() -> None:
    assert plans_for(parse_targets("all")) == [("sm75",), NEWER]
    with pytest.raises(UsageError, match="no engine for sm61"):
        plans_for(("sm61",))


def test_the_precision_is_the_gpus_own_never_blindly() -> None:
    assert [advised(target) for target in ("sm60", "sm61", "sm75", "sm86")] == ["fp32", "fp32", "fp16", "fp16"]
    with pytest.raises(
        UsageError, match="sm61 computes fp16 at 1/64 of the rate of fp32: take int8, which it has DP4A"
    ):
        check_precision("sm61", "fp16")
    assert "1/64" in check_precision("sm61", "fp16", anyway=True)
    assert check_precision("sm61", "int8") == ""
    assert "no tensor cores" in check_precision("sm60", "fp16")
    assert "no DP4A" in check_precision("sm60", "int8")
    rtx = TensorRtRtx(Settings())
    with pytest.raises(UsageError, match="fp16 engines only for sm75"):
        rtx.check_precision("sm75", "fp32")
    assert rtx.check_precision("sm86", "fp16") == ""


# conversion


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", ["resnet", "upscaler"])
def test_a_converted_model_answers_as_the_model_and_takes_the_same(name: str, precision: Precision) -> None:
    made = recipe(name, precision)
    assert 0 < made.agreement.error <= made.agreement.tolerance
    before, after = (onnx.load_from_string(body).graph for body in (made.model, made.graph))
    assert [value.type for value in before.output] == [value.type for value in after.output]
    assert [value.name for value in before.input] == [value.name for value in after.input]
    kinds = {node.op_type for node in after.node}
    weights = {tensor.data_type for tensor in after.initializer if len(tensor.dims) == 4}
    assert ("DequantizeLinear" in kinds) == (precision == "int8")
    assert weights == {TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT16}


@pytest.mark.parametrize("name", ["shotchange", "lanczos2x", "fingerprint"])
def test_bytes_that_are_moved_about_are_cast_at_the_ends_and_answers_stay_the_same_bit_for_bit(name: str) -> None:
    spec, model = builtin_model(name)
    changed = bytes_at_ends(model)
    assert (changed == model) == (name == "fingerprint")
    ranges = {"H": (20, 20, 20), "W": (36, 36, 36)} if name == "lanczos2x" else {}
    ranges |= {"T": (4, 4, 4)} if name == "fingerprint" else {}
    rows = probe_rows(spec, profiles_of(spec, ranges), 3)
    answers = [OnnxRuntimeSession(body, spec).run(rows) for body in (model, changed)]
    for output in spec.outputs:
        np.testing.assert_array_equal(answers[0][output.name], answers[1][output.name])


def test_conversion_gives_equal_bytes_for_equal_models() -> None:
    assert recipe("resnet", "fp16").graph == recipe("resnet", "fp16").graph
    assert recipe("resnet", "int8").graph == recipe("resnet", "int8").graph


def test_int8_wants_media() -> None:
    with pytest.raises(UsageError, match="--calibrate"):
        Recipe.make(*resnet(), "int8", {})


def test_a_model_that_overflows_fp16_is_not_built_in_fp16() -> None:
    graph = Graph()
    graph.op("Mul", "x", np.float32(1e6), result="y")
    ends = [TensorSpec(name=name, dtype="float32", shape=("N", 4)) for name in "xy"]
    spec, model = graph.finish(ModelSpec(name="big", inputs=(ends[0],), outputs=(ends[1],), sha256=""))
    with pytest.raises(ModelError, match="does not answer as ONNX Runtime does on the CPU"):
        _ = Recipe.make(spec, model, "fp16", {}).agreement


def hand_made(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    out: tuple[int | str, ...],
    constants: dict[str, Array],
    opset: int = 17,
    dtype: str = "uint8",
) -> tuple[ModelSpec, bytes]:
    """A model of any opset, `x` -> `y [out] float32`; `dtype` and `shape` are those of `x`."""
    ends = [
        onnx.helper.make_tensor_value_info("x", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape),
        onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, out),
    ]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    body = model.SerializeToString()
    spec = ModelSpec(
        name="m",
        inputs=(TensorSpec(name="x", dtype=dtype, shape=shape),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=out),),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return spec, body


def convolution(opset: int) -> tuple[ModelSpec, bytes]:
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
    ]
    return hand_made(nodes, ("N", 64, 64, 3), ("N", 8), {"w": weights}, opset)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_int8_raises_opsets_that_have_no_weights_per_channel(opset: int) -> None:
    spec, model = convolution(opset)
    rows = [{"x": batch["pixels"]} for batch in noise(2)]
    made = Recipe.make(spec, model, "int8", {}, rows)
    assert made.agreement.error <= made.agreement.tolerance
    assert onnx.load_from_string(made.graph).opset_import[0].version >= 13


def test_int8_of_an_operation_that_onnx_does_not_know_says_so() -> None:
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node("ImageScaler", ["f"], ["g"], scale=1.0, bias=[0.0] * 3),
        node("ReduceMean", ["g"], ["y"], axes=[2, 3], keepdims=0),
    ]
    spec, model = hand_made(nodes, ("N", 3, 8, 8), ("N", 3), {}, opset=7)
    with pytest.raises(ModelError, match=r"ONNX's tools do not know operation ImageScaler, to raise its 7"):
        Recipe.make(spec, model, "int8", {}, [{"x": np.zeros((1, 3, 8, 8), np.uint8)}])


def test_fp16_that_ends_onnx_runtime_when_it_fuses_is_built_all_the_same() -> None:
    """Reshape, Transpose, MatMul in fp16: ONNX Runtime 1.32 ends with SIGSEGV while it fuses them."""
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node("Reshape", ["f", "shape"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
        node("MatMul", ["t", "w"], ["b"]),
        node("Transpose", ["b"], ["y"], perm=[1, 0, 2]),
    ]
    weights = (np.random.default_rng(0).standard_normal((3, 5)) / 10).astype(np.float32)
    constants = {"w": weights, "shape": np.array([-1, 1024, 3])}
    made = Recipe.make(*hand_made(nodes, ("N", 32, 32, 3), ("N", 1024, 5), constants, opset=11), "fp16", {})
    assert made.agreement.error <= made.agreement.tolerance


def test_what_ends_the_process_that_converts_or_compiles_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Recipe.make(*resnet(), "fp16", {})
    assert made.agreement.rows == 2
    basis = made.basis("tensorrt_rtx", ("sm86",)) if installed("tensorrt_rtx") else kept_engine(tmp_path)[1].basis
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelError, match=r"`resnet` ends the process that converts it \(SIGSEGV\)"):
        Recipe.make(*resnet(), "fp16", {})
    with pytest.raises(ModelError, match=r"`resnet` ends the process that compiles it \(SIGSEGV\): TensorRT fails"):
        made.build(basis)


# agreement


def offset() -> tuple[ModelSpec, bytes]:
    """mean + 1000.3 - 1000.2, which fp16 rounds to mean + 0.5: 0.003 of what pictures give, and all of what noise does.

    It takes floats from 0 to 255, and nothing says so.
    """
    node = onnx.helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["s"], axes=[2, 3], keepdims=0),
        node("Add", ["s", "a"], ["t"]),
        node("Sub", ["t", "b"], ["y"]),
    ]
    constants = {"a": np.array(1000.3, np.float32), "b": np.array(1000.2, np.float32)}
    return hand_made(nodes, ("N", 3, 32, 32), ("N", 3), constants, dtype="float32")


def test_fp16_is_judged_on_pictures_in_the_range_that_a_model_takes() -> None:
    spec, model = offset()
    found = Recipe.make(spec, model, "fp16", {}).agreement
    assert (found.on, found.rows) == ("pictures", 2)
    assert found.error == pytest.approx(0.003, abs=0.003)
    assert found.ranges["x"] == pytest.approx((0, 255))
    assert described(found) == "drawn pictures with values from 0 to 255"


def test_a_card_says_the_range_and_media_show_it() -> None:
    spec, model = offset()
    small = spec.inputs[0].model_copy(update={"range": (-1.0, 1.0)})
    with pytest.raises(ModelError, match=r"on drawn pictures with values from -1 to 1, 0\.01 .*--calibrate"):
        _ = Recipe.make(spec.model_copy(update={"inputs": (small,)}), model, "fp16", {}).agreement
    media = {"x": np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32)).astype(np.float32)}
    found = Recipe.make(spec, model, "fp16", {}, [media]).agreement
    assert (found.on, found.rows, found.ranges["x"]) == ("media", 4, (0, 255))
    small_media = {"x": media["x"] / 255}
    with pytest.raises(ModelError, match=r"on the media of --calibrate, .* in a higher precision$"):
        _ = Recipe.make(spec, model, "fp16", {}, [small_media]).agreement


@pytest.mark.parametrize("inner", [(32, 32, 3), (3, 32, 32), (5, 32, 32, 3), (64,), (4,), ()])
def test_drawn_rows_are_like_pictures(inner: tuple[int, ...]) -> None:
    spec = ModelSpec(
        name="m", inputs=(TensorSpec(name="x", dtype="uint8", shape=("N", *inner)),), outputs=(), sha256=""
    )
    rows = probe_rows(spec, profiles_of(spec, {}), 5)["x"]
    assert (rows.shape, rows.dtype) == ((5, *inner), np.uint8)
    np.testing.assert_array_equal(rows, probe_rows(spec, profiles_of(spec, {}), 5)["x"], "the same each time")
    if len(inner) > 1:
        assert (int(rows[0].min()), int(rows[0].max())) == (0, 255)
        along = int(np.argmax(inner))
        near = np.corrcoef(np.moveaxis(rows[0], along, 0)[1:].ravel(), np.moveaxis(rows[0], along, 0)[:-1].ravel())
        assert near[0, 1] > 0.5, "neighbours are alike"


class Wrong(OnnxRuntimeSession):
    """A model whose answers are off by a factor."""

    factor = 1.02

    def run(self, inputs):  # type: ignore[no-untyped-def]
        return {name: array * np.float32(self.factor) for name, array in super().run(inputs).items()}


@pytest.mark.parametrize(("factor", "allowed"), [(1.0, True), (1.005, True), (1.02, False), (np.nan, False)])
def test_an_engine_that_answers_otherwise_is_not_served(factor: float, allowed: bool) -> None:
    spec, model = resnet()
    wrong = Wrong(model, spec)
    wrong.factor = factor
    found = compare(wrong, OnnxRuntimeSession(model, spec), probe_rows(spec, profiles_of(spec, {}), 2), "fp16", "here")
    if allowed:
        assert demand(found, "resnet").rows == 2
    else:
        with pytest.raises(ModelError, match=r"0\.01 is allowed: build it in a higher precision"):
            demand(found, "resnet")


# profiles


def test_every_free_dimension_needs_a_range_but_the_batch() -> None:
    assert profiles_of(resnet()[0], {}) == (
        Profile(input="pixels", smallest=(1, 64, 64, 3), best=(8, 64, 64, 3), largest=(32, 64, 64, 3)),
    )
    with pytest.raises(UsageError, match="add --dim H=SMALLEST:BEST:LARGEST"):
        profiles_of(upscaler()[0], {})
    with pytest.raises(UsageError, match="no free dimension Q: it has N"):
        profiles_of(resnet()[0], {"Q": (1, 1, 1)})
    with pytest.raises(UsageError, match="N=4:2:1 is no range"):
        profiles_of(resnet()[0], {"N": (4, 2, 1)})


# plans, really built, on a machine without a GPU


@rtx
@pytest.mark.parametrize(
    ("name", "targets"),
    [
        pytest.param(name, targets, marks=[pytest.mark.slow] if (name, targets) == ("x3d_s", ("sm75",)) else [])
        for name in NETS
        for targets in (("sm75",), NEWER)
    ],
)
def test_plans_are_built_for_gpus_that_are_not_here(name: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    spec, plan = build_for(name, "fp16", targets)
    assert plan[:4] == b"vtrt"
    assert plan[32] == sum(TARGET_BITS[target] for target in targets)
    model, _ = NETS[name][0]()
    assert (spec.inputs, spec.outputs[0].name) == (model.inputs, model.outputs[0].name)
    assert {tensor.dtype for tensor in spec.outputs} == {"float32"}
    assert spec.basis.targets == targets
    assert spec.basis.profiles[0].largest[0] == spec.rows == 32
    assert (spec.size_bytes, spec.sha256) == (len(plan), hashlib.sha256(plan).hexdigest())
    store = EngineStore(tmp_path)
    store.keep(spec, plan)
    assert store.load(spec.key) == (spec, plan)


@rtx
def test_fp32_and_int8_are_built_for_newer_gpus() -> None:
    for precision in ("fp32", "int8"):
        assert build_for("resnet", precision, NEWER)[0].basis.precision == precision  # type: ignore[arg-type]


@rtx
@pytest.mark.parametrize(
    ("graph", "output"),
    [
        (lambda: b"", "it is an empty file"),
        (lambda: b"no onnx at all", "it is not a whole ONNX file"),
        (lambda: resnet()[1], "sm75 has no FP32 GEMM in TensorRT-RTX"),
        (lambda: builtin_model("shotchange")[1], "it computes with bytes: cast uint8 inputs to float first"),
    ],
)
def test_what_the_builder_refuses_is_reported_in_one_line(graph: Callable[[], bytes], output: str) -> None:
    with pytest.raises(ModelError) as error:
        build_plan("m", graph(), "tensorrt_rtx", ("sm75",), "fp32", profiles_of(resnet()[0], {}))
    assert str(error.value).startswith(f"model `m`: {output}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("In node 0 with name:  and operator: Foo (checkFallbackPluginImporter): INVALID_NODE", "no operation Foo"),
        ('UNSUPPORTED_NODE_ATTR: (antialias == 0) && "..."', "no antialiased Resize"),
        ("Network has dynamic or shape inputs, but no optimization profile has been defined", "has no range"),
        ("OutOfMemory (Requested size was 14921528 bytes.)", "ran out of memory"),
        ("something\nquite new", "was refused by TensorRT: something quite new"),
    ],
)
def test_known_refusals_have_words_of_ours(words: str, output: str) -> None:
    error = refused("m", [words])
    assert output in str(error)
    assert error.hint

"""Engines: converted, built for cards that are not here, kept, tested, refused."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from engines.building.agreement import compare, demand, probe_rows
from engines.building.builder import build_plan
from engines.building.cards import advised, check_precision, parse_targets, plans_for
from engines.building.convert import bytes_at_ends
from engines.building.engine import Recipe, profiles_of
from engines.building.refusals import refused
from engines.building.store import EngineStore
from engines.inference.bindings import installed
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.models.graph import Graph
from engines.part import Array
from schemas.engine import EngineSpec, Precision, Profile
from schemas.errors import ModelError, UsageError
from schemas.pipeline import ModelSpec, TensorSpec
from tests.nets import resnet, upscaler, x3d

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


# which cards, which precision


def test_cards_are_named_as_people_name_them() -> None:
    assert parse_targets("sm120, 8.6,sm_75,86") == ("sm75", "sm86", "sm120")
    assert parse_targets("all") == ("sm75", *NEWER)
    with pytest.raises(UsageError, match="rtx3090 is no kind of card"):
        parse_targets("rtx3090")


def test_turing_has_a_plan_of_its_own() -> None:
    assert plans_for(parse_targets("all")) == [("sm75",), NEWER]
    with pytest.raises(UsageError, match="no engine for sm61"):
        plans_for(("sm61",))


def test_the_precision_is_the_cards_own_never_blindly() -> None:
    assert [advised(target) for target in ("sm60", "sm61", "sm75", "sm86")] == ["fp32", "fp32", "fp16", "fp16"]
    with pytest.raises(
        UsageError, match="sm61 computes fp16 at 1/64 of the rate of fp32: take int8, which it has DP4A"
    ):
        check_precision("sm61", "fp16", "tensorrt")
    assert "1/64" in check_precision("sm61", "fp16", "tensorrt", anyway=True)
    assert check_precision("sm61", "int8", "tensorrt") == ""
    assert "no tensor cores" in check_precision("sm60", "fp16", "tensorrt")
    assert "no DP4A" in check_precision("sm60", "int8", "tensorrt")
    with pytest.raises(UsageError, match="fp16 engines only for sm75"):
        check_precision("sm75", "fp32", "tensorrt_rtx")
    assert check_precision("sm86", "fp16", "tensorrt_rtx") == ""


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


# agreement


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


# plans, really built, on a machine without a card


@rtx
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("targets", [("sm75",), NEWER], ids="+".join)
def test_plans_are_built_for_cards_that_are_not_here(name: str, targets: tuple[str, ...], tmp_path: Path) -> None:
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
def test_fp32_and_int8_are_built_for_newer_cards() -> None:
    for precision in ("fp32", "int8"):
        assert build_for("resnet", precision, NEWER)[0].basis.precision == precision  # type: ignore[arg-type]


@rtx
@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (lambda: b"", "it is an empty file"),
        (lambda: b"no onnx at all", "it is not a whole ONNX file"),
        (lambda: resnet()[1], "sm75 has no FP32 GEMM in TensorRT-RTX"),
        (lambda: builtin_model("shotchange")[1], "it computes with bytes: cast uint8 inputs to float first"),
    ],
)
def test_what_the_builder_refuses_is_told_in_one_line(graph: Callable[[], bytes], said: str) -> None:
    with pytest.raises(ModelError) as error:
        build_plan("m", graph(), "tensorrt_rtx", ("sm75",), "fp32", profiles_of(resnet()[0], {}))
    assert str(error.value).startswith(f"model `m`: {said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("In node 0 with name:  and operator: Foo (checkFallbackPluginImporter): INVALID_NODE", "no operation Foo"),
        ('UNSUPPORTED_NODE_ATTR: (antialias == 0) && "..."', "no antialiased Resize"),
        ("Network has dynamic or shape inputs, but no optimization profile has been defined", "has no range"),
        ("OutOfMemory (Requested size was 14921528 bytes.)", "ran out of memory"),
        ("something\nquite new", "was refused by TensorRT: something quite new"),
    ],
)
def test_known_refusals_have_words_of_ours(words: str, said: str) -> None:
    error = refused("m", [words])
    assert said in str(error)
    assert error.hint

"""The backend ncnn: the answers of ONNX Runtime, rows that depend on nothing else, and what it refuses."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from engines.backends.ncnn import Ncnn
from engines.heads.planes import byte_values
from engines.inference import ncnn
from engines.inference.ncnn import NcnnSession
from engines.inference.onnxruntime import OnnxRuntimeSession
from schemas.errors import ModelError, PluginMissing
from schemas.model import ModelSpec, TensorSpec
from schemas.settings import Settings
from tests.clips import real_clip
from tests.compact import compact
from tests.convolutions import convolutions
from tests.nets import resnet, upscaler
from tests.onnx_graphs import FLOAT, model_of, value
from tests.weights import weights

Array = np.ndarray[Any, Any]
PLANES = (6, 9, 11)
PIXELS = np.random.default_rng(5).integers(0, 256, (3, 20, 24, 3), np.uint8)


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) / np.float32(3)


def op(kind: str, *constants: Any, outputs: tuple[str, ...] = ("output",), first: bool = False, **how: Any) -> bytes:
    """A graph of one operation of `input [n, 6, 9, 11]` and constants, which `first` puts in front; of several outputs
    the last one counts.
    """
    names = [f"c{number}" for number in range(len(constants))]
    inputs = [*names, "input"] if first else ["input", *names]
    kept = tuple(numpy_helper.from_array(np.asarray(each), name) for name, each in zip(names, constants, strict=True))
    return graph(helper.make_node(kind, inputs, list(outputs), **how), constants=kept, output=outputs[-1])


def graph(
    *nodes: Any, constants: tuple[Any, ...] = (), output: str = "output", shape: tuple[int, ...] = PLANES
) -> bytes:
    taken = value("input", FLOAT, ["n", *shape])
    return model_of(list(nodes), [taken], [helper.make_tensor_value_info(output, FLOAT, None)], constants)


def node(kind: str, inputs: str, output: str, **how: Any) -> Any:
    return helper.make_node(kind, inputs.split(), output.split(), **how)


def spec_of(body: bytes) -> ModelSpec:
    """A card that says what a graph does."""
    session = onnxruntime.InferenceSession(body)
    inputs, outputs = (
        tuple(
            TensorSpec(
                name=each.name,
                dtype="float32",
                shape=tuple(size or f"free{axis}" for axis, size in enumerate(each.shape)),
            )
            for each in tensors
        )
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    return ModelSpec(name="net", inputs=inputs, outputs=outputs, sha256="")


def opened(body: bytes, spec: ModelSpec) -> NcnnSession:
    session = Ncnn(Settings()).open(body, spec, SimpleNamespace(gpu=None))  # type: ignore[arg-type]
    assert isinstance(session, NcnnSession)
    return session


def check_alike(body: bytes, spec: ModelSpec, **inputs: Array) -> None:
    """It answers as ONNX Runtime, to 1e-4 of the largest value, and the inputs stay as they are."""
    kept = {name: array.copy() for name, array in inputs.items()}
    session = opened(body, spec)
    found, reference = session.run(inputs), OnnxRuntimeSession(body, spec)
    rows = [
        reference.run({name: array[row : row + 1] for name, array in kept.items()})
        for row in range(len(next(iter(kept.values()))))
    ]
    expected = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    session.close()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4 * max(1.0, float(np.abs(array).max())))
    for name, array in kept.items():
        np.testing.assert_array_equal(inputs[name], array)


INTS, FOUR = np.array, np.full(4, 0.25, np.float32)
OPERATIONS = {
    "relu": op("Relu"),
    "leaky": op("LeakyRelu", alpha=0.3),
    "sigmoid": op("Sigmoid"),
    "tanh": op("Tanh"),
    "elu": op("Elu", alpha=0.7),
    "hard sigmoid": op("HardSigmoid", alpha=0.3, beta=0.4),
    "hard swish": op("HardSwish"),
    "clip": op("Clip", np.float32(-0.2), np.float32(0.3)),
    "clip below": op("Clip", np.float32(0.1)),
    "prelu": op("PRelu", random(6, 1, 1)),
    "one slope": op("PRelu", random(1, 1, 1)),
    "add a number": op("Add", np.float32(0.7)),
    "minus a number": op("Sub", np.float32(0.7)),
    "from a number": op("Sub", np.float32(0.7), first=True),
    "divided by channel": op("Div", 2 + random(6, 1, 1)),
    "divide by it": graph(
        node("Sigmoid", "input", "s"), node("Div", "c s", "output"), constants=(numpy_helper.from_array(FOUR[:1], "c"),)
    ),
    "channels from": op("Sub", random(1, 6, 1, 1), first=True),
    "by line": op("Mul", random(9, 1)),
    "by column": op("Mul", random(1, 1, 11)),
    "by plane": op("Add", random(6, 9, 11)),
    "largest": op("Max", random(6, 1, 1)),
    "least": op("Min", np.float32(0.1)),
    "with itself": graph(node("Mul", "input input", "output")),
    "gate": graph(node("GlobalAveragePool", "input", "p"), node("Sigmoid", "p", "s"), node("Mul", "input s", "output")),
    "several times": graph(
        node("Relu", "input", "r"), node("Sub", "r input", "d"), node("Concat", "r d input r", "output", axis=1)
    ),
    "concat of lines": graph(node("Relu", "input", "r"), node("Concat", "r input", "output", axis=-2)),
    "split": op("Split", INTS([1, 2, 3]), outputs=("a", "b", "output"), axis=1),
    "split of columns": op("Split", INTS([4, 7]), outputs=("a", "output"), axis=3),
    "other order": op("Gather", INTS([5, 3, 4, 0, 1, 2]), axis=1),
    "nearest": op(
        "Resize",
        FOUR[:0],
        np.array([1, 1, 2, 3], "f4"),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
    "bilinear": op("Resize", FOUR[:0], np.array([1, 1, 2, 2], "f4"), mode="linear"),
    "bilinear to a size": op("Resize", FOUR[:0], FOUR[:0], INTS([1, 6, 20, 17]), mode="linear"),
    "smaller": op(
        "Resize", FOUR[:0], FOUR[:0], INTS([1, 6, 5, 4]), mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "cubic": op("Resize", FOUR[:0], np.array([1, 1, 2, 2], "f4"), mode="cubic"),
    "largest of four": op("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "largest with pads": op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "mean": op("AveragePool", kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1]),
    "mean with pads": op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "mean of planes": op("ReduceMean", axes=[2, 3], keepdims=0),
    "flat": op("Flatten"),
    "lines of planes": op("Reshape", INTS([0, 6, 99])),
    "smaller planes": op("Reshape", INTS([1, 9, 6, 11])),
    "colours last": op("Transpose", perm=[0, 2, 3, 1]),
    "colours first": op("Transpose", perm=[0, 3, 1, 2]),
    "turned": op("Transpose", perm=[0, 3, 2, 1]),
    "softmax of channels": op("Softmax", axis=1),
    "softmax of columns": op("Softmax", axis=-1),
    "zeros around": op("Pad", INTS([0, 0, 1, 2, 0, 0, 3, 4])),
    "mirrored around": op("Pad", INTS([0, 0, 1, 2, 0, 0, 3, 4]), mode="reflect"),
    "repeated around": op("Pad", INTS([0, 0, 1, 2, 0, 0, 3, 4]), mode="edge"),
    "numbers around": op("Pad", INTS([0, 0, 1, 0, 0, 0, 0, 4]), np.float32(0.5)),
    "transposed": op(
        "ConvTranspose", random(6, 4, 3, 3), random(4), strides=[2, 2], pads=[1, 0, 1, 1], output_padding=[1, 0]
    ),
    "in blocks": graph(node("SpaceToDepth", "input", "output", blocksize=2), shape=(3, 8, 12)),
    "from blocks": graph(node("DepthToSpace", "input", "output", blocksize=2, mode="DCR"), shape=(12, 5, 7)),
    "from blocks of torch": graph(node("DepthToSpace", "input", "output", blocksize=2, mode="CRD"), shape=(12, 5, 7)),
    "product": graph(
        node("Flatten", "input", "f"),
        node("Gemm", "f w b", "output", transB=1),
        shape=(4, 2, 3),
        constants=(numpy_helper.from_array(random(5, 24), "w"), numpy_helper.from_array(random(5), "b")),
    ),
    "product of lines": graph(
        node("MatMul", "input w", "output"), shape=(7, 4), constants=(numpy_helper.from_array(random(4, 5), "w"),)
    ),
    "folded norm": graph(
        node("Conv", "input w", "c", pads=[1] * 4),
        node("BatchNormalization", "c g b m v", "output"),
        constants=(
            numpy_helper.from_array(random(4, 6, 3, 3), "w"),
            *(numpy_helper.from_array(FOUR + at, name) for at, name in enumerate("gbmv")),
        ),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_answers_as_by_onnx_runtime(name: str) -> None:
    body = OPERATIONS[name]
    spec = spec_of(body)
    check_alike(body, spec, input=random(2, *(int(size) for size in spec.inputs[0].shape[1:])))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_convolutions_of_all_kinds(data: st.DataObject) -> None:
    def draw(*among: int) -> int:
        return data.draw(st.sampled_from(among))

    channels, group = draw(1, 3, 8, 16), 1
    if channels > 3:
        group = draw(1, 2, channels)
    kernel, out = [draw(1, 2, 3, 5), draw(1, 3)], group * draw(1, 4, 8)
    how = {
        "strides": [draw(1, 2), draw(1, 2)],
        "dilations": [draw(1, 2), draw(1, 2)],
        "pads": [draw(0, 1, 2) for _ in "1234"],
    }
    if data.draw(st.booleans()):
        how = {"strides": how["strides"], "auto_pad": data.draw(st.sampled_from(["SAME_UPPER", "VALID"]))}
    weights = [numpy_helper.from_array(random(out, channels // group, *kernel), "w")]
    weights += [numpy_helper.from_array(random(out), "b")] if data.draw(st.booleans()) else []
    shape = (channels, draw(11, 16, 23), draw(12, 19))
    names = " ".join(["input", *(each.name for each in weights)])
    body = graph(node("Conv", names, "output", group=group, **how), constants=tuple(weights), shape=shape)
    check_alike(body, spec_of(body), input=random(1, *shape))


def test_networks_of_pictures() -> None:
    spec, body = upscaler()
    check_alike(body, spec, pixels=PIXELS)
    spec, body = resnet()
    check_alike(body, spec, pixels=np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8))
    for body in (compact(3), convolutions(3), convolutions(2, unshuffle=True)):
        check_alike(body, spec_of(body), input=np.random.default_rng(2).random((1, 3, 34, 42), np.float32))


@pytest.mark.models
def test_a_real_network_upscales_a_real_frame_as_by_onnx_runtime() -> None:
    """Bytes differ by 1 at most, and fewer than one in ten thousand do."""
    body = weights("realesr-animevideov3-x4.onnx").read_bytes()
    spec = spec_of(body)
    with av.open(real_clip("bikes")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    given = np.ascontiguousarray(frame.transpose(2, 0, 1)[None, :, :160, :200]) / np.float32(255)
    made, expected = (
        byte_values(next(iter(session.run({spec.inputs[0].name: given}).values()))).astype(int)
        for session in (opened(body, spec), OnnxRuntimeSession(body, spec))
    )
    assert made.shape == (1, 3, 640, 800)
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 1e-4


def test_a_row_depends_on_no_other_and_on_no_order() -> None:
    spec, body = upscaler()
    session, small = opened(body, spec), PIXELS[:, :9, :13]
    session.warm_up()
    answer = session.run({"pixels": PIXELS})["doubled"]
    kept = answer.copy()
    for row in (2, 0, 1):
        session.run({"pixels": small})
        session.run({"pixels": small[:, :5]})  # a third size: the first one is written again
        np.testing.assert_array_equal(answer[row], session.run({"pixels": PIXELS[row : row + 1]})["doubled"][0])
    np.testing.assert_array_equal(answer, kept)  # it belongs to the caller
    np.testing.assert_array_equal(answer, opened(body, spec).run({"pixels": PIXELS})["doubled"])
    with pytest.raises(ModelError, match="expected uint8"):
        session.run({"pixels": PIXELS.astype(np.float32)})


REFUSED = {
    "Erf is not among": op("Erf"),
    "Softmax along the batch": op("Softmax", axis=0),
    "Gather of other than channels": op("Gather", INTS([0, 0, 1]), axis=1),
    "`output` has the shape .2, 6, 9, 11., and 1 row": op("Add", random(2, 6, 1, 1)),
    "in other than two dimensions, or with computed": graph(
        node("ReduceMean", "input", "m", axes=[2, 3]), node("Conv", "input m", "output")
    ),
    "Cast to other than float32": graph(node("Cast", "input", "h", to=10), node("Cast", "h", "output", to=1)),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_it_cannot_run_is_one_line_that_says_why(why: str) -> None:
    with pytest.raises(ModelError, match=f"cannot be run by ncnn: .*{why}.*onnxruntime") as caught:
        opened(REFUSED[why], spec_of(REFUSED[why]))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_of_its_card() -> None:
    body = compact(1)
    spec = spec_of(body)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        opened(b"no graph", spec)
    halves = convolutions(1, unshuffle=True)
    session = opened(halves, spec_of(halves))
    with pytest.raises(ModelError, match=r"failed on rows of \[3, 9, 10\]: "):
        session.run({"input": random(1, 3, 9, 10)})
    with pytest.raises(ModelError, match="has no output `other`"):
        opened(body, spec.model_copy(update={"outputs": (spec.outputs[0].model_copy(update={"name": "other"}),)}))


def test_a_network_that_answers_otherwise_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ncnn.write
    monkeypatch.setattr(
        ncnn, "write", lambda model: replace(made := right(model), param=made.param.replace("0=3.0", "0=2.0"))
    )
    body = OPERATIONS["leaky"]
    with pytest.raises(
        ModelError, match=r"does not answer by ncnn as by ONNX Runtime: .*0.001 is allowed.*onnxruntime"
    ):
        opened(body, spec_of(body))


def test_it_is_refused_where_it_is_not_installed_and_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    body = compact(1)
    with pytest.raises(
        PluginMissing, match=r"needs the package ncnn, which is not installed here: install the extra ncnn: "
    ):
        NcnnSession(body, spec_of(body))
    assert Ncnn(Settings()).refuses(SimpleNamespace(gpu=object()))  # type: ignore[arg-type]
    assert not Ncnn(Settings()).refuses(SimpleNamespace(gpu=None))  # type: ignore[arg-type]

"""X3D networks for own kernels: which graphs have the form, and that the planned launches give the graph's answers."""

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from engines.inference import x3d as kernels
from engines.inference.own_kernels import form_of, has_own_kernels
from engines.inference.weights import parsed_graph
from engines.inference.x3d import SOURCE, STRUCTS
from engines.inference.x3d_graph import BODY, X3dNet, x3d_net
from engines.inference.x3d_steps import INPUT, OUTPUT, Room, Step, Steps
from engines.part import Array
from tests.host_gpu import COMPILER, built
from tests.nets import small_x3d, x3d
from tests.noting_gpu import NotingGpu

KERNELS = {"space_1": (3, 3, 1), "space_2": (3, 3, 2), "time_5": (5, 1, 1)}  # times, side, stride
SPAN = 4  # places of a strip
ROOM = Room(108, 99 << 10)


def net_of(graph: bytes) -> X3dNet:
    net = x3d_net(parsed_graph(graph, "m"))
    assert net is not None
    return net


def test_x3d_s_is_recognised() -> None:
    net = net_of(x3d()[1])
    assert [block.depthwise.channels for block in net.blocks] == [54] * 3 + [108] * 5 + [216] * 11 + [432] * 7
    assert [n for n, block in enumerate(net.blocks) if block.shortcut] == [0, 3, 8, 19]
    assert sum(block.gate is not None for block in net.blocks) == 15
    assert net.last is not None
    assert (net.scale, net.shift) == (pytest.approx(1 / 255 / 0.225), pytest.approx(-2))
    assert has_own_kernels(small_x3d()[1], "m", (8, 0))
    assert not has_own_kernels(small_x3d()[1], "m", (7, 5))
    assert form_of(small_x3d()[1], "m") == "X3D network"
    assert form_of(b"no graph", "m") == ""


def _convolutions(graph: Any) -> list[Any]:
    return [node for node in graph.node if node.op_type == "Conv"]


def _other_pads(graph: Any) -> None:
    next(each for each in _convolutions(graph)[1].attribute if each.name == "pads").ints[0] = 1


def _grouped(graph: Any) -> None:
    """A first convolution in groups."""
    next(each for each in _convolutions(graph)[0].attribute if each.name == "group").i = 3


def _other_activation(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"


def _floats_in(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def _divided_by_zero(graph: Any) -> None:
    node = next(each for each in graph.node if each.op_type == "Mul")
    node.op_type = "Div"
    zero = onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")
    graph.initializer.append(zero)
    node.input[1] = zero.name


def _one_number_for_pads(graph: Any) -> None:
    convolution = _convolutions(graph)[0]
    convolution.attribute.remove(next(each for each in convolution.attribute if each.name == "pads"))
    convolution.attribute.append(onnx.helper.make_attribute("pads", 1))


def _number_for_a_tensor(graph: Any) -> None:
    """A constant whose `value` is no tensor, before all else."""
    name = _convolutions(graph)[0].input[1]
    graph.initializer.remove(next(each for each in graph.initializer if each.name == name))
    graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=1.0))


def _block_with_one_number_for_pads(graph: Any) -> None:
    """In the first block, so that no block is found."""
    convolution = _convolutions(graph)[3]
    convolution.attribute.remove(next(each for each in convolution.attribute if each.name == "pads"))
    convolution.attribute.append(onnx.helper.make_attribute("pads", 1))


CHANGES = [_other_pads, _grouped, _other_activation, _floats_in]
STRANGE = [_divided_by_zero, _one_number_for_pads, _number_for_a_tensor, _block_with_one_number_for_pads]


@pytest.mark.parametrize("change", CHANGES + STRANGE)
def test_a_graph_of_another_form_is_left_to_the_library(change: Callable[[Any], None]) -> None:
    model = onnx.load_from_string(small_x3d()[1])
    change(model.graph)
    assert x3d_net(parsed_graph(model.SerializeToString(), "m")) is None


def test_blocks_up_to_one_of_another_form_are_computed_and_the_rest_is_left() -> None:
    model = onnx.load_from_string(small_x3d()[1])
    last = [node for node in model.graph.node if node.op_type == "Relu"][-4]  # in the second block
    last.op_type = "Tanh"
    graph = model.SerializeToString()
    assert len(net_of(graph).blocks) == 1
    check(graph, 182)


def test_memory_is_let_go_after_the_batches_that_use_it_and_weights_are_there_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "image_for", lambda *_: b"")
    gpu: Any = NotingGpu()
    own = kernels._Kernels(gpu, net_of(small_x3d()[1]), tmp_path)
    held: list[int] = []
    stream = SimpleNamespace(synchronize=lambda: held.append(own._memory[OUTPUT].pointer))
    small, _ = own.launch(0, (1, 13, 46, 46), stream)
    uploaded = gpu.counters.to_gpu_bytes
    own.launch(0, (1, 13, 30, 46), stream)
    assert held == []
    own.launch(0, (2, 13, 182, 182), stream)
    assert held == [small]
    for side in range(30, 60):
        own.launch(0, (1, 13, side, side), stream)
    assert held == [small]
    assert gpu.counters.to_gpu_bytes == uploaded > 0
    assert len({int(each.values[0]["weights"]) for each in own._made.values()}) == 1
    assert len(own._made) == 16
    assert gpu.launched == 33 * len(own._made[1, 13, 59, 59].steps)


@pytest.mark.parametrize(("side", "stride"), [(182, 8), (61, 4)])
def test_the_launches_give_the_answers_of_the_graph(side: int, stride: int) -> None:
    check(x3d(((8, 2), (16, 2)), 64, 10, stride, side)[1], side)


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("side", "stride"), [(61, 4), (46, 2)])
def test_kernels_give_what_the_launches_say(side: int, stride: int) -> None:
    """The source of those whose threads do not work together, on the host."""
    functions = built(SOURCE, {"first": "First", **dict.fromkeys(KERNELS, "Depthwise")})
    pixels = np.random.default_rng(4).integers(0, 256, (2, 13, side, side, 3), np.uint8)
    steps = Steps(net_of(x3d(((8, 2), (24, 2)), 64, 10, stride, side)[1]), (2, 13, side, side), ROOM)

    def launched(step: Step, given: Mapping[str, Array], memory: Mapping[str, Array]) -> None:
        if step.kernel not in ("first", *KERNELS):
            return
        found = {
            name: np.full_like(memory[step.memory[name]], np.nan) for name in ("out", "sums") if name in step.memory
        }
        arrays = {name: np.ascontiguousarray(each) for name, each in {**given, **step.constants, **found}.items()}
        struct = np.zeros((), STRUCTS[step.kernel])
        for name, value in {**step.numbers, **{name: array.ctypes.data for name, array in arrays.items()}}.items():
            struct[name] = value
        getattr(functions, f"launch_{step.kernel}")(ctypes.c_void_p(struct.ctypes.data), *step.grid, step.threads)
        for name in found:
            expected = memory[step.memory[name]].astype(np.float64)
            np.testing.assert_allclose(arrays[name], expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())

    computed(steps, pixels, launched)


def check(graph: bytes, side: int) -> None:
    net = net_of(graph)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 13, side, side, 3), np.uint8)
    steps = Steps(net, (2, 13, side, side), ROOM)
    body = computed(steps, pixels)[..., : steps.channels]
    found = ort.InferenceSession(net.rest).run(None, {BODY: body})
    expected = ort.InferenceSession(graph).run(None, {"pixels": pixels})
    for mine, array in zip(found, expected, strict=True):
        assert np.linalg.norm(mine - array) / np.linalg.norm(array) < 2e-3


def computed(steps: Steps, pixels: Array, seen: Callable[[Step, Any, Any], None] = lambda *_: None) -> Array:
    """The last value, as the kernels compute it; `seen` is called with each launch, what it reads, and all memory."""
    memory: dict[str, Array] = {INPUT: pixels}
    for step in steps.steps:
        given = {name: memory[each] for name, each in step.memory.items() if name not in ("out", "sums")}
        made = _LAUNCHED[step.kernel.partition("_")[0]](step, given, memory)
        memory[step.memory["out"]] = made
        seen(step, given, memory)
        assert made.nbytes <= steps.nbytes[step.memory["out"]]
    return memory[OUTPUT]


def _taps(value: Array, step: Step, kernel: tuple[int, int, int]) -> list[Array]:
    """What each tap reads of a value, in the order of weights."""
    (times, side, stride), numbers = kernel, step.numbers
    frames, height, width = value.shape[1], int(numbers["height"]), int(numbers["width"])
    padded = np.pad(value, ((0, 0), (times // 2,) * 2, (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    return [
        padded[:, t : t + frames, y : y + stride * (height - 1) + 1 : stride, x : x + stride * (width - 1) + 1 : stride]
        for t in range(times)
        for y in range(side)
        for x in range(side)
    ]


def _first(step: Step, given: Mapping[str, Array], memory: Mapping[str, Array]) -> Array:
    floats = given["in"].astype(np.float32) * np.float32(step.numbers["scale"]) + np.float32(step.numbers["shift"])
    weights = step.constants["weights"].reshape(9, 3, -1)
    taps = _taps(floats, step, (1, 3, int(step.numbers["stride"])))
    made: Array = sum(tap @ each for tap, each in zip(taps, weights, strict=True))
    return made.astype(np.float16)


def _depthwise(step: Step, given: Mapping[str, Array], memory: dict[str, Array]) -> Array:
    taps = _taps(given["in"].astype(np.float32), step, KERNELS[step.kernel])
    made: Array = sum(tap * each for tap, each in zip(taps, step.constants["weights"], strict=True))
    made = made + step.constants["bias"]
    if step.numbers["relu"]:
        made = np.maximum(made, 0)
    if "sums" in step.memory:
        strips = -(-made.shape[3] // SPAN)
        wide = np.pad(made, ((0, 0), (0, 0), (0, 0), (0, strips * SPAN - made.shape[3]), (0, 0)))
        shape = (len(made), made.shape[1], made.shape[2], strips, SPAN, made.shape[4])
        memory["sums"] = wide.reshape(shape).sum((1, 4)).reshape(len(made), made.shape[2] * strips, made.shape[4])
    if step.numbers["swish"]:
        made = made / (1 + np.exp(-made))
    return made.astype(np.float16)


def _gate(step: Step, given: Mapping[str, Array], memory: Mapping[str, Array]) -> Array:
    assert memory["sums"].shape[1] == step.numbers["strips"]
    means, constants = memory["sums"].sum(1) / step.numbers["values"], step.constants
    narrow = np.maximum(means @ constants["narrow"].T + constants["narrow_bias"], 0)
    made: Array = 1 / (1 + np.exp(-(narrow @ constants["wide"] + constants["wide_bias"])))
    return made.astype(np.float32)


def _pointwise(step: Step, given: Mapping[str, Array], memory: Mapping[str, Array]) -> Array:
    numbers, constants = step.numbers, step.constants
    value, stride, pitch = given["in"].astype(np.float32), int(numbers["stride"]), int(numbers["pitch"])
    assert value.shape[-1] == numbers["in_pitch"]
    if "gates" in given:
        value = value * given["gates"][:, None, None, None, :]
    if numbers["swish"]:
        value = value / (1 + np.exp(-value))
    value = value[:, :, ::stride, ::stride].astype(np.float16).astype(np.float32)
    assert value.shape[2:4] == (numbers["height"], numbers["width"])
    assert np.prod(value.shape[1:4]) == numbers["window_rows"]
    made: Array = value @ constants["weights"][:pitch, : value.shape[-1]].T.astype(np.float32)
    made = made + constants["bias"][0, :pitch]
    if "added" in given:
        made = made + given["added"].astype(np.float32)
    return (np.maximum(made, 0) if numbers["relu"] else made).astype(np.float16)


_LAUNCHED: Mapping[str, Callable[..., Array]] = {
    "first": _first,
    "space": _depthwise,
    "time": _depthwise,
    "gate": _gate,
    "pointwise": _pointwise,
}

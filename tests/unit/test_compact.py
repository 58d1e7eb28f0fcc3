"""Compact upscalers: which graphs have the form, and how their weights lie for the kernels."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.upscale import CARD, random_network
from engines.content import graph_of
from engines.inference import compact
from engines.inference.compact import between, packed
from engines.inference.compact_graph import CompactNet, compact_net
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.own_kernels import has_own_kernels
from engines.inference.weights import parsed_graph
from engines.models.catalogue import load_model
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelSpec
from tests.noting_gpu import NotingGpu

HEIGHT, WIDTH = 40, 48


def upscaler(folder: Path, graph: bytes | None = None) -> tuple[ModelSpec, bytes]:
    path = folder / "upscaler.onnx"
    path.write_bytes(graph or random_network())
    path.with_suffix(".toml").write_text(CARD.format(HEIGHT, WIDTH))
    spec, content = load_model(path)
    return spec, graph_of(content)


def changed(graph: bytes, change: Callable[[Any], None]) -> bytes:
    model = onnx.load_from_string(graph)
    change(model.graph)
    return bytes(model.SerializeToString())


def nodes(graph: Any, kind: str) -> list[Any]:
    return [node for node in graph.node if node.op_type == kind]


def test_the_form_is_recognised_from_bytes_to_pixels(tmp_path: Path) -> None:
    _, model = upscaler(tmp_path)
    net = compact_net(parsed_graph(model, "m"))
    assert net is not None
    assert (len(net.layers), net.factor, net.adds_picture) == (18, 4, False)
    assert net.scale == pytest.approx(1 / 255)
    assert {layer.weights.shape for layer in net.layers} == {(64, 3, 3, 3), (64, 64, 3, 3), (48, 64, 3, 3)}
    assert set(net.layers[0].slope) == {np.float32(0.2)}
    assert set(net.layers[-1].slope) == {1.0}
    assert has_own_kernels(model, "m", (8, 6))
    assert not has_own_kernels(model, "m", (7, 5))


def _other_pads(graph: Any) -> None:
    nodes(graph, "Conv")[3].attribute[0].ints[:] = [0, 0, 0, 0]


def _other_activation(graph: Any) -> None:
    nodes(graph, "PRelu")[2].op_type = "Pow"


def _other_order(graph: Any) -> None:
    shuffle = nodes(graph, "DepthToSpace")[0]
    next(each for each in shuffle.attribute if each.name == "mode").s = b"DCR"


def _skip(graph: Any) -> None:
    """A layer whose input is added to its output."""
    activation, convolution = nodes(graph, "PRelu")[4], nodes(graph, "Conv")[4]
    made = activation.output[0]
    activation.output[0] = "within"
    graph.node.append(onnx.helper.make_node("Add", ["within", convolution.input[0]], [made]))


def _nothing_to_pass_on(graph: Any) -> None:
    graph.node.insert(0, onnx.helper.make_node("Identity", [], ["nothing"]))


def _two_outputs(graph: Any) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["n"]))


CHANGES = [_other_pads, _other_activation, _other_order, _skip, _two_outputs, _nothing_to_pass_on]


@pytest.mark.parametrize("change", CHANGES)
def test_a_graph_of_another_form_is_left_to_the_library(tmp_path: Path, change: Callable[[Any], None]) -> None:
    _, model = upscaler(tmp_path)
    assert compact_net(parsed_graph(changed(model, change), "m")) is None


def test_other_channels_are_left_to_the_library(tmp_path: Path) -> None:
    _, model = upscaler(tmp_path, random_network(32))
    assert compact_net(parsed_graph(model, "m")) is None


def computed(net: CompactNet, pixels: Array) -> Array:
    """The network as the kernels compute it, of packed weights, in float32."""
    value = pixels.astype(np.float32) * np.float32(net.scale)  # [N, H, W, 3]
    for layer in net.layers:
        weights, bias, slope = packed(layer)
        by_place = weights.reshape(9, 3, 64).transpose(0, 2, 1) if weights.ndim == 2 else weights.astype(np.float32)
        around = np.pad(value, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = value.shape[1:3]
        sums = sum(
            around[:, tap // 3 : tap // 3 + height, tap % 3 : tap % 3 + width] @ by_place[tap].T for tap in range(9)
        )
        value = sums + bias
        value = np.where(value > 0, value, value * slope)
    count, height, width, factor = *value.shape[:3], net.factor
    made = value[..., : 3 * factor * factor].reshape(count, height, width, 3, factor, factor)
    return made.transpose(0, 3, 1, 4, 2, 5).reshape(count, 3, height * factor, width * factor)


def test_packed_weights_give_the_answers_of_the_graph(tmp_path: Path) -> None:
    spec, model = upscaler(tmp_path)
    net = compact_net(parsed_graph(model, "m"))
    assert net is not None
    pixels = np.random.default_rng(4).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    expected = OnnxRuntimeSession(model, spec).run({spec.inputs[0].name: pixels})[spec.outputs[0].name]
    found = computed(net, pixels)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 2e-3


def test_a_picture_that_is_added_and_leaks_are_recognised(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        for node in nodes(graph, "PRelu"):
            node.op_type = "LeakyRelu"
            del node.input[1]
            node.attribute.append(onnx.helper.make_attribute("alpha", 0.1))
        scaled = nodes(graph, "Mul")[0].output[0]
        graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"))
        shuffle, output = nodes(graph, "DepthToSpace")[0], graph.output[0].name
        shuffle.output[0] = "shuffled"
        words = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        graph.node.append(onnx.helper.make_node("Resize", [scaled, "", "scales"], ["large"], **words))
        graph.node.append(onnx.helper.make_node("Add", ["shuffled", "large"], [output]))

    _, model = upscaler(tmp_path)
    net = compact_net(parsed_graph(changed(model, change), "m"))
    assert net is not None
    assert net.adds_picture
    assert set(net.layers[3].slope) == {np.float32(0.1)}


def test_memory_that_is_not_there_is_an_error_of_the_model() -> None:
    class Driver:
        MemoryError = ArithmeticError

    class Pool:
        def take(self, nbytes: int) -> None:
            raise Driver.MemoryError

    with pytest.raises(ModelError, match=r"no 3 GB of free memory on cuda:0"):
        between(SimpleNamespace(driver=Driver, memory=Pool(), name="cuda:0"), 3_000_000_000)  # type: ignore[arg-type]


def test_memory_is_let_go_after_the_batches_that_use_it(tmp_path: Path) -> None:
    net = compact_net(parsed_graph(upscaler(tmp_path)[1], "m"))
    assert net is not None
    gpu: Any = NotingGpu()
    own = compact._Kernels(gpu, net, b"")
    held: list[list[int]] = []
    stream = SimpleNamespace(synchronize=lambda: held.append([block.pointer for block in own._between]))
    own.launch(0, 0, (1, 20, 20), stream, None)
    first = [block.pointer for block in own._between]
    held.clear()
    own.launch(0, 0, (1, 20, 10), stream, None)
    assert held == []
    own.launch(0, 0, (2, 40, 40), stream, None)
    assert held == [first]
    assert gpu.launched == 3 * len(net.layers)

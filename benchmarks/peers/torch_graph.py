"""An ONNX graph as a module of PyTorch, in float16, for `torch.compile`; and how many rows a second that computes.

`python -m benchmarks.peers.torch_graph model.onnx --shape 64,13,182,182,3 [--seconds 3]`: bytes in and outputs left on
the GPU, as the sessions that it is held against. It needs torch with CUDA. With `--wait` it says when it is compiled,
and measures when it gets a line, so that several can be compiled at once and measured one after the other.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

Values = dict[str, Any]


class Module(torch.nn.Module):
    """The graph's operations, one after the other. Constants of floats are float16; shapes and axes are numbers."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        self._input, self._outputs = graph.input[0].name, [output.name for output in graph.output]
        self._numbers: dict[str, Any] = {}
        self._kept: dict[str, str] = {}
        self._steps: list[tuple[Callable[..., Any], list[str], list[str], dict[str, Any]]] = []
        self._plain = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
        for tensor in graph.initializer:
            self._constant(tensor.name, numpy_helper.to_array(tensor))
        for node in graph.node:
            given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if node.op_type == "Constant":
                self._constant(node.output[0], numpy_helper.to_array(given["value"]))
            else:
                self._steps.append((OPERATIONS[node.op_type], list(node.input), list(node.output), given))

    def _constant(self, name: str, array: Any) -> None:
        if array.dtype.kind == "f" and array.size and name not in self._plain:
            self._kept[name] = f"c{len(self._kept)}"
            tensor = torch.from_numpy(array.astype(np.float16))
            if array.ndim == 4 and min(array.shape) > 0:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.register_buffer(self._kept[name], tensor)
        else:
            self._numbers[name] = array.tolist()  # the compiler would take an array for a value of the graph

    def forward(self, given: Any) -> tuple[Any, ...]:
        """The outputs."""
        values: Values = {self._input: given, "": None}
        values.update((name, getattr(self, kept)) for name, kept in self._kept.items())
        values.update(self._numbers)
        for operation, inputs, outputs, attributes in self._steps:
            made = operation(*(values[name] for name in inputs), **attributes)
            values.update(zip(outputs, made if isinstance(made, tuple | list) else [made], strict=True))
        return tuple(values[name].float() for name in self._outputs)


def _conv(x: Any, w: Any, b: Any = None, group: int = 1, strides: Any = 1, pads: Any = 0, **_: Any) -> Any:
    rank = w.dim() - 2
    kind = {2: functional.conv2d, 3: functional.conv3d}[rank]
    pads = list(pads)[:rank] if pads else 0
    return kind(x, w, b, strides if isinstance(strides, int) else tuple(strides), pads, 1, group)


def _resize(x: Any, _: Any, scales: Any, *__: Any, **___: Any) -> Any:
    return functional.interpolate(x, scale_factor=scales[2:], mode="nearest")


def _slice(x: Any, starts: Any, ends: Any, axes: Any, *_: Any) -> Any:
    for start, end, axis in zip(starts, ends, axes, strict=True):
        x = x.narrow(axis, start, min(end, x.shape[axis]) - start)
    return x


def _mean(x: Any, axes: Any = None, keepdims: int = 1) -> Any:
    return x.mean(list(axes), keepdim=bool(keepdims))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "Resize": _resize,
    "Slice": _slice,
    "ReduceMean": _mean,
    "Identity": lambda x: x,
    "Transpose": lambda x, perm: x.permute(perm),
    "Cast": lambda x, to: x.half(),
    "Mul": lambda a, b: a * b,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Div": lambda a, b: a / b,
    "Relu": torch.relu,
    "PRelu": lambda x, slope: functional.prelu(x, slope.reshape(-1)),
    "LeakyRelu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "GlobalAveragePool": lambda x: x.mean(list(range(2, x.dim())), keepdim=True),
    "AveragePool": lambda x, kernel_shape, strides, **_: functional.avg_pool3d(x, tuple(kernel_shape), tuple(strides)),
    "MaxPool": lambda x, kernel_shape, strides, pads, **_: functional.max_pool2d(x, kernel_shape, strides, pads[:2]),
    "Flatten": lambda x, axis=1: x.flatten(axis),
    "MatMul": lambda a, b: a @ b,
    "Gemm": lambda a, b, c, **_: torch.addmm(c, a, b),
    "DepthToSpace": lambda x, blocksize, mode: functional.pixel_shuffle(x, blocksize),
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Split": lambda x, sizes, axis=0: torch.split(x, sizes, axis),
    "Reshape": lambda x, shape: x.reshape([x.shape[n] if size == 0 else size for n, size in enumerate(shape)]),
    "ReduceSum": lambda x, axes, keepdims=1: x.sum(axes, keepdim=bool(keepdims)),
}


def compiled(path: Path, shape: Sequence[int]) -> tuple[Any, Any]:
    """The compiled module and its input, after the first runs."""
    module = Module(onnx.load(path).graph).cuda().eval()
    given = torch.randint(0, 256, tuple(shape), dtype=torch.uint8, device="cuda")
    run = torch.compile(module, dynamic=False)
    with torch.inference_mode():
        for _ in range(3):
            run(given)
    torch.cuda.synchronize()
    return run, given


def rate(run: Any, given: Any, seconds: float) -> float:
    """Rows a second."""
    with torch.inference_mode():
        began_s, done = time.perf_counter(), 0
        while time.perf_counter() - began_s < seconds:
            for _ in range(4):
                run(given)
            torch.cuda.synchronize()
            done += 4 * len(given)
        return done / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--shape", required=True, help="of the bytes, with the batch")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    began_s = time.perf_counter()
    run, given = compiled(options.model, [int(size) for size in options.shape.split(",")])
    took_s = time.perf_counter() - began_s
    if options.wait:
        print("compiled", flush=True)
        sys.stdin.readline()
    figures = {"rows/s": rate(run, given, options.seconds), "compiled in s": took_s, "torch": torch.__version__}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

"""Resemblyzer's speaker encoder: its file `pretrained.pt` as ONNX, without torch.

A network of three LSTMs and a linear layer, trained by GE2E: `mel [n, 160, 40]` -> `embedding [n, 256]`, of length 1.
Source: resemble-ai/Resemblyzer, voice_encoder.py.
"""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from engines.models.graph import OPSET
from engines.part import Array
from schemas.errors import ModelError

FRAMES, BANDS = 160, 40
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch's files before 1.6
_LAYERS, _WIDTH = 3, 256
_MOST_BYTES = 64 << 20  # of a file; it has 17 MB
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8", "IntStorage": "<i4"}


class _Storage(NamedTuple):
    dtype: str
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Reader(pickle.Unpickler):
    """Reads descriptions of tensors; runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        return _Storage(pid[1], pid[2])


def encoder_of(path: Path) -> bytes | None:
    """Return the ONNX file of Resemblyzer's encoder; None for a file that is something else. Raises ModelError."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        with path.open("rb") as file:
            weights = _weights(file)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except Exception:  # pickle raises anything for a file that is none
        return None
    return None if weights is None else _onnx(weights)


def _weights(file: BinaryIO) -> Mapping[str, Array] | None:
    """The arrays of the network, by their names; None if they are others."""
    if _Reader(file).load() != _MAGIC:
        return None
    _Reader(file).load()  # version
    _Reader(file).load()  # machine
    state = _Reader(file).load()["model_state"]
    needed = {f"lstm.{kind}_l{n}" for kind in _KINDS for n in range(_LAYERS)} | {"linear.weight", "linear.bias"}
    if not needed <= state.keys():
        return None
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in state.values()}
    storages = {}
    for key in _Reader(file).load():
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(dtypes.get(key, "<f4"))  # those of the optimizer are of no use
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: _array(state[name], storages) for name in needed}


_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _array(tensor: _Tensor, storages: Mapping[str, Array]) -> Array:
    count = int(np.prod(tensor.shape))
    flat = storages[tensor.storage.key][tensor.offset : tensor.offset + count]
    return flat.reshape(tensor.shape).astype(np.float32)


def _onnx(weights: Mapping[str, Array]) -> bytes:
    constants = {"linear": weights["linear.weight"], "bias": weights["linear.bias"]}
    constants |= {"directions": np.array([1], np.int64), "first": np.array([0], np.int64)}
    nodes = [helper.make_node("Transpose", ["mel"], ["rows0"], perm=[1, 0, 2])]
    for n in range(_LAYERS):
        ih, hh, b_ih, b_hh = (_gates(weights[f"lstm.{kind}_l{n}"]) for kind in _KINDS)
        constants |= {f"w{n}": ih[None], f"r{n}": hh[None], f"b{n}": np.concatenate([b_ih, b_hh])[None]}
        gives = [f"all{n}", f"last{n}", f"cell{n}"]
        nodes.append(helper.make_node("LSTM", [f"rows{n}", f"w{n}", f"r{n}", f"b{n}"], gives, hidden_size=_WIDTH))
        nodes.append(helper.make_node("Squeeze", [f"all{n}", "directions"], [f"rows{n + 1}"]))
    nodes += [
        helper.make_node("Squeeze", [f"last{_LAYERS - 1}", "first"], ["state"]),
        helper.make_node("Gemm", ["state", "linear", "bias"], ["raw"], transB=1),
        helper.make_node("Relu", ["raw"], ["positive"]),
        helper.make_node("ReduceL2", ["positive"], ["length"], axes=[1]),
        helper.make_node("Div", ["positive", "length"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "ge2e",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["n", FRAMES, BANDS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", _WIDTH])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def _gates(weights: Array) -> Array:
    """Torch's order of gates, input, forget, cell, output, as ONNX has it: input, output, forget, cell."""
    given, forget, cell, output = np.split(weights, 4)
    return np.concatenate([given, output, forget, cell])

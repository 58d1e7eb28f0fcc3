"""Converts a model to another precision; the result is an ONNX graph that any backend can run and test."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engines.inference.weights import check_weights
from engines.part import Array
from engines.scratch import scratch_folder
from schemas.engine import Precision
from schemas.errors import ModelError

Batch = Mapping[str, Array]  # a batch by input name

QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")  # operations for which int8 is faster; the others are unchanged


INT8_OPSET = 13  # the first opset whose DequantizeLinear has an axis, for weights per channel


def converted(name: str, model: bytes, precision: Precision, batches: Sequence[Batch]) -> bytes:
    """Return the graph to compile for a precision. Call it by `in_own_process`: ONNX's tools crash on some graphs."""
    check_weights(model, name)
    graph = bytes_at_ends(model)
    if precision == "fp16":
        return to_fp16(name, graph)
    return to_int8(name, graph, batches) if precision == "int8" else graph


def to_fp16(name: str, model: bytes) -> bytes:
    """Return the model with fp16 arithmetic; its inputs and outputs keep their dtypes. Raises ModelError."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values below fp16's smallest cause one warning each
            converted = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
        return bytes(converted.SerializeToString(deterministic=True))
    except Exception as error:  # the converter raises many kinds of errors for unusual graphs
        raise ModelError(f"model `{name}` cannot be converted to fp16: {_line(error)}", "build it in fp32") from error


def to_int8(name: str, model: bytes, batches: Iterable[Batch]) -> bytes:
    """Return the model with int8 products, by Q/DQ nodes with the ranges of `batches` of real media.

    Symmetric, weights per channel, biases unquantised, as TensorRT requires. Raises ModelError.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader = _Reader(batches)
    with scratch_folder("int8") as folder:
        source, ready, target = (folder / f"{step}.onnx" for step in ("source", "ready", "target"))
        source.write_bytes(_raised(name, model))
        try:
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(target),
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
            )
        except Exception as error:  # the quantiser raises many kinds of errors for unusual graphs
            what = f"model `{name}` cannot be quantised, ONNX Runtime's quantiser fails on its graph: {_line(error)}"
            raise ModelError(what, "build it in fp16 or fp32") from error
        return target.read_bytes()


def _raised(name: str, model: bytes) -> bytes:
    """Return the model in opset 13 or later. Raises ModelError."""
    import onnx
    import onnx.version_converter

    parsed = onnx.load_from_string(model)
    opset = next((each.version for each in parsed.opset_import if each.domain in ("", "ai.onnx")), INT8_OPSET)
    if opset >= INT8_OPSET:
        return model
    needs = f"model `{name}` cannot be quantised: int8 needs opset {INT8_OPSET}"
    standard = {node.op_type for node in parsed.graph.node if node.domain in ("", "ai.onnx")}
    unknown = sorted(kind for kind in standard if not onnx.defs.has(kind))
    if unknown:
        what = f"{needs}, and ONNX's tools do not know operation {unknown[0]}, to raise its {opset}"
        raise ModelError(what, "build it in fp16 or fp32")
    try:
        return bytes(onnx.version_converter.convert_version(parsed, INT8_OPSET).SerializeToString())
    except Exception as error:  # the converter raises many kinds of errors for unusual graphs
        what = f"{needs}, and its {opset} cannot be raised: {_line(error)}"
        raise ModelError(what, "export it with a newer opset, or build it in fp16") from error


class _Reader:
    """Calibration rows with the interface that the quantiser requires."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        rows = next(self._batches, None)
        if rows is None:
            return None
        return {name: np.ascontiguousarray(array) for name, array in rows.items()}

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError("calibration media is read once, from its beginning")


def _line(error: Exception) -> str:
    """Return the reason alone, without the C++ source line and assertion in front of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^.*?Assertion `.*?` failed: ", "", text)
    return text[:300]


def bytes_at_ends(model: bytes) -> bytes:
    """Return the model with bytes only at its inputs and outputs, because TensorRT cannot compute with bytes.

    Many exports move pixels (reshape, pad, transpose) before they cast them to float, or after they cast them back. All
    256 values are exact in float and in half, so the outputs stay the same, bit for bit. A model that needs its bytes
    is unchanged.
    """
    import onnx
    from onnx import TensorProto, helper

    changed = onnx.load_from_string(model)
    graph, makers = changed.graph, {name: node for node in changed.graph.node for name in node.output}
    first, nodes, last = [], [], []
    for name in [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8]:
        readers = [node for node in graph.node if name in node.input]
        if any(node.op_type != "Cast" for node in readers):
            first.append(helper.make_node("Cast", [name], [f"{name}_in"], to=TensorProto.FLOAT))
            _rename(readers, name, f"{name}_in")
    ends = {value.name for value in graph.output}
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8 and node.output[0] not in ends:
            node.attribute[0].i = TensorProto.INT32  # truncates, as a cast to bytes does
            whole, node.output[0] = node.output[0], f"{node.output[0]}_whole"
            nodes.append(helper.make_node("Cast", [node.output[0]], [whole], to=TensorProto.FLOAT))
    for name in [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.UINT8]:
        maker = makers.get(name)
        if maker is not None and maker.op_type != "Cast":
            maker.output[:] = [f"{name}_out" if each == name else each for each in maker.output]
            _rename([node for node in graph.node if name in node.input], name, f"{name}_out")
            last.append(helper.make_node("Cast", [f"{name}_out"], [name], to=TensorProto.UINT8))
    nodes = [*first, *nodes, *last]
    if len(nodes) == len(graph.node):
        return model
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    try:
        onnx.checker.check_model(changed, full_check=True)
    except Exception:  # a node needs bytes; the builder reports it
        return model
    return bytes(changed.SerializeToString(deterministic=True))


def _rename(nodes: Iterable[Any], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if each == old else each for each in node.input]

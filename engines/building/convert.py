"""A model in another precision: an ONNX graph again, so that any backend can run it and it can be tested anywhere."""

import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.part import Array
from schemas.errors import ModelError

Rows = Mapping[str, Array]  # a batch by input name

QUANTISED = ("Conv", "ConvTranspose", "MatMul", "Gemm")  # where int8 pays; the rest stays as it is


def to_fp16(name: str, model: bytes) -> bytes:
    """The same model computing in fp16; its inputs and outputs keep their dtypes. Raises ModelError."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values below fp16's smallest are told one by one
            converted = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
        return bytes(converted.SerializeToString(deterministic=True))
    except Exception as error:  # whatever the converter meets in a strange graph
        raise ModelError(f"model `{name}` cannot be converted to fp16: {_line(error)}", "build it in fp32") from error


def to_int8(name: str, model: bytes, batches: Iterable[Rows]) -> bytes:
    """The same model with its products in int8, by Q/DQ nodes: ranges as `batches` of real media show them.

    Symmetric, weights per channel, biases unquantised: what TensorRT takes. Raises ModelError.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader = _Reader(batches)
    with tempfile.TemporaryDirectory(prefix="rigflow-int8-") as folder:
        source, ready, target = (Path(folder) / f"{step}.onnx" for step in ("source", "ready", "target"))
        source.write_bytes(model)
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
        except Exception as error:  # whatever the quantiser meets in a strange graph
            hint = "build it in fp16 or fp32" if reader.given else "calibrate with media that has pictures in it"
            raise ModelError(f"model `{name}` cannot be quantised: {_line(error)}", hint) from error
        return target.read_bytes()


class _Reader:
    """Calibration rows in the way that the quantiser asks for them."""

    def __init__(self, batches: Iterable[Rows]) -> None:
        self._batches = iter(batches)
        self.given = 0

    def get_next(self) -> dict[str, Any] | None:
        rows = next(self._batches, None)
        if rows is None:
            return None
        self.given += 1
        return {name: np.ascontiguousarray(array) for name, array in rows.items()}

    def set_range(self, start_index: int, end_index: int) -> None:
        raise NotImplementedError("calibration media is read once, from its beginning")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]

"""Runs a TensorRT plan on a GPU by tensorrt 8.6, 10, 11 or tensorrt_rtx; all names used exist in all of them."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from engines.inference.bindings import DTYPES, collecting_logger, load
from schemas.engine import EngineSpec
from schemas.errors import DeviceLost, ModelError


class TensorRtPlan:
    """A loaded plan; `enter` makes its GPU's context the calling thread's. Raises ModelError: it does not fit this GPU.

    `engines.inference.plan.PlanSession` uses and feeds it.
    """

    def __init__(self, plan: bytes, engine: EngineSpec, enter: Callable[[], None]) -> None:
        enter()
        self._spec, self._messages = engine, list[str]()
        trt = load(engine.basis.backend)
        self._runtime = trt.Runtime(collecting_logger(trt, self._messages))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine.create_execution_context() if self._engine else None
        if self._context is None:
            raise ModelError(f"engine {engine.key} cannot be loaded: {self._why()}", "build it for this GPU")
        for tensor in (*engine.inputs, *engine.outputs):
            dtype = DTYPES.get(self._engine.get_tensor_dtype(tensor.name).name)
            if dtype != tensor.dtype:
                raise ModelError(
                    f"engine {engine.key}: `{tensor.name}` is {dtype}, not {tensor.dtype}", "build it again"
                )

    @property
    def batch_bytes(self) -> int:
        """Return the bytes of the largest batch of its profile."""
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in self._spec.inputs}
        return sum(prod(each.largest) * dtypes[each.input].itemsize for each in self._spec.basis.profiles)

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all outputs for a batch of these input shapes. Raises ModelError outside the profile."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                where = f"model `{self._spec.model}`, input `{name}`: {list(shape)} is outside of its engine's profile"
                raise ModelError(where, "build it with a wider --dim")
        return {tensor.name: tuple(self._context.get_tensor_shape(tensor.name)) for tensor in self._spec.outputs}

    def launch(self, pointers: Mapping[str, int], stream: Any) -> None:
        """Queue the batch of the last `output_shapes` call, from and to device pointers. Raises DeviceLost."""
        for name, pointer in pointers.items():
            self._context.set_tensor_address(name, int(pointer))
        if not self._context.execute_async_v3(stream.handle):
            raise DeviceLost(f"model `{self._spec.model}` failed on the GPU: {self._why()}")

    def close(self) -> None:
        """Free the GPU's memory."""
        self._context = self._engine = self._runtime = None

    def _why(self) -> str:
        return " ".join(" ".join(self._messages[-1:]).split())[:300] or "it gave no reason"

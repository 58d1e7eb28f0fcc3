"""A TensorRT plan on a card: tensorrt 8.6, 10, 11 and tensorrt_rtx, by names that all of them have."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from engines.inference.bindings import DTYPES, collecting_logger, load
from engines.inference.session import check_inputs
from engines.part import Array
from schemas.engine import EngineSpec
from schemas.errors import DeviceLost, ModelError
from schemas.pipeline import ModelSpec


class TensorRtSession:
    """A plan on a card; `enter` makes its context the calling thread's. Raises ModelError: it does not fit here."""

    def __init__(self, plan: bytes, spec: ModelSpec, engine: EngineSpec, enter: Callable[[], None]) -> None:
        from pycuda import driver

        enter()
        self.spec, self._engine_spec, self._enter, self._said = spec, engine, enter, list[str]()
        trt = load(engine.basis.backend)
        self._driver, self._stream = driver, driver.Stream(1)  # CU_STREAM_NON_BLOCKING
        self._runtime = trt.Runtime(collecting_logger(trt, self._said))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine.create_execution_context() if self._engine else None
        if self._context is None:
            raise ModelError(f"engine {engine.key} cannot be loaded: {self._why()}", "build it for this card")
        tensors = (*engine.inputs, *engine.outputs)
        self._dtypes = {each.name: np.dtype(DTYPES[self._engine.get_tensor_dtype(each.name).name]) for each in tensors}
        profiles = engine.basis.profiles  # `batch_bytes` keeps batches within them
        self.batch_bytes = sum(prod(profile.largest) * self._dtypes[profile.input].itemsize for profile in profiles)

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs for a batch of these input shapes. Raises ModelError outside of the profile."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                where = f"model `{self.spec.name}`, input `{name}`: {list(shape)} is outside of its engine's profile"
                raise ModelError(where, "build it with a wider --dim")
        return {name.name: tuple(self._context.get_tensor_shape(name.name)) for name in self._engine_spec.outputs}

    def launch(self, pointers: Mapping[str, int], stream: Any) -> None:
        """Queue the batch that `output_shapes` was told of, from and to device pointers. Raises DeviceLost."""
        for name, pointer in pointers.items():
            self._context.set_tensor_address(name, int(pointer))
        if not self._context.execute_async_v3(stream.handle):
            raise DeviceLost(f"model `{self.spec.name}` failed on the card: {self._why()}")

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one batch, from and to the host. Raises ModelError and DeviceLost."""
        check_inputs(self.spec, inputs)
        self._enter()
        given = {tensor.name: np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs}
        shapes = self.output_shapes({name: array.shape for name, array in given.items()})
        outputs = {name: np.empty(shape, self._dtypes[name]) for name, shape in shapes.items()}
        try:
            blocks = {name: self._driver.mem_alloc(max(1, array.nbytes)) for name, array in (given | outputs).items()}
            for name, array in given.items():
                self._driver.memcpy_htod_async(blocks[name], array, self._stream)
            self.launch({name: int(block) for name, block in blocks.items()}, self._stream)
            for name, array in outputs.items():
                self._driver.memcpy_dtoh_async(array, blocks[name], self._stream)
            self._stream.synchronize()
        except self._driver.Error as error:
            raise DeviceLost(f"model `{self.spec.name}` failed on the card: {error}") from error
        return {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}

    def warm_up(self) -> None:
        """Run the profile's best shapes: TensorRT-RTX compiles what it left for then."""
        self.run({p.input: np.zeros(p.best, self._dtypes[p.input]) for p in self._engine_spec.basis.profiles})

    def close(self) -> None:
        """Give back the card's memory."""
        self._context = self._engine = self._runtime = None

    def _why(self) -> str:
        return " ".join(" ".join(self._said[-1:]).split())[:300] or "it gave no reason"

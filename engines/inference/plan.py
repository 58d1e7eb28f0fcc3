"""Runs a TensorRT plan with the inputs of ONNX Runtime on a GPU: rows gathered there, two batches in flight."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import Content
from engines.inference.cuda import CudaSession
from engines.inference.tensorrt import TensorRtPlan
from schemas.engine import EngineSpec
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu


class PlanSession(CudaSession):
    """A plan on a GPU, with device pointers. Raises ModelError: it is not for this GPU, or not as `spec` states."""

    def __init__(self, plan: bytes, spec: ModelSpec, engine: EngineSpec, gpu: "CudaGpu") -> None:
        self._plan = TensorRtPlan(plan, engine, gpu.enter)
        self._engine = engine
        super().__init__(b"", spec, gpu)
        self.batch_bytes = self._plan.batch_bytes
        self.batch_rows = engine.rows

    def warm_up(self) -> None:
        """Run the profile's best shapes: TensorRT-RTX compiles some kernels only at the first run."""
        dtypes = {tensor.name: tensor.dtype for tensor in self.spec.inputs}
        self.run({each.input: np.zeros(each.best, dtypes[each.input]) for each in self._engine.basis.profiles})

    def close(self) -> None:
        """Free the plan and its memory."""
        self._plan.close()
        super().close()

    def _computed(self, inputs: Mapping[str, Any], room: int) -> int:
        """Return the number of rows: a plan runs the same kernels for any batch size of its profile."""
        rows: int = next(iter(inputs.values())).shape[0]
        return rows

    def _load(self, model: Content, tf32: bool, search: str, layout: str) -> Any:
        """Return an object with the ONNX Runtime API that the base class uses: bindings and declared tensors."""
        return SimpleNamespace(
            io_binding=_Binding,
            get_inputs=lambda: [_node(tensor) for tensor in self._engine.inputs],
            get_outputs=lambda: [_node(tensor) for tensor in self._engine.outputs],
        )

    def _queue(
        self, binding: Any, inputs: Mapping[str, Any], computed: int
    ) -> Callable[[Sequence[Any]], dict[str, Any]]:
        """Queue the plan; its output shapes are known before it runs. Unused outputs are written to a spare block."""
        given = {name: tuple(array.shape) for name, array in inputs.items()}
        shapes = self._plan.output_shapes(given)
        count = next(iter(given.values()))[0]
        for name in self._outputs:
            if shapes[name][:1] != (count,):
                found = f"shape {list(shapes[name])} for a batch of {count}"
                raise ModelError(f"model `{self.spec.name}`, output `{name}`: {found}", "give it a row for each row in")
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in self._engine.outputs}
        kind = tuple((name, shape[1:]) for name, shape in sorted(given.items()))
        self._made[kind] = {name: (dtypes[name], shapes[name][1:]) for name in self._outputs}
        spare = [name for name in shapes if name not in self._outputs]
        sizes = {name: int(np.prod(shapes[name])) * dtypes[name].itemsize for name in spare}
        blocks = {name: self._gpu.memory.take(max(1, nbytes)) for name, nbytes in sizes.items()}
        binding.pointers |= {name: block.pointer for name, block in blocks.items()}
        finish = super()._queue(binding, inputs, computed)
        return lambda held: finish([held, blocks])  # blocks return to the pool after the plan has used them

    def _go(self, binding: Any) -> None:
        self._plan.launch(binding.pointers, self._runs)


class _Binding:
    """The addresses of the tensors of one batch."""

    def __init__(self) -> None:
        self.pointers: dict[str, int] = {}

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, pointer: int) -> None:
        self.pointers[name] = pointer

    bind_output = bind_input


def _node(tensor: TensorSpec) -> SimpleNamespace:
    return SimpleNamespace(name=tensor.name, type=f"tensor({tensor.dtype})", shape=list(tensor.shape))

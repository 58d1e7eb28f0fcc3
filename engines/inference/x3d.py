"""Runs X3D networks on a GPU by kernels of rigflow's own, in float16: NVIDIA GPUs since Ampere.

Depthwise convolutions over time and space read each frame once, and biases, activations, gates and sums are part of the
convolutions, so that a value is written and read once. What follows the blocks is computed by ONNX Runtime, in float32.
The sums of a value are always made in the same order, whatever the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engines.content import Content
from engines.cuda.copies import copied
from engines.cuda.kernels import ADDRESS, FLOAT, INT, image_for, struct_of
from engines.cuda.memory import aligned
from engines.inference import compact
from engines.inference.cuda import CudaSession
from engines.inference.x3d_graph import BODY, X3dNet
from engines.inference.x3d_steps import INPUT, OUTPUT, Room, Shape, Step, Steps
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block

_MOST_SHAPES = 16  # whose launches are kept
SOURCE = Path(__file__).parents[1] / "cuda" / "x3d.cu"
POINTWISE_SOURCE = SOURCE.with_name("pointwise.cu")
DEPTHWISE = struct_of(
    (ADDRESS, "in out weights bias sums"),
    (INT, "windows frames in_height in_width height width pitch relu swish"),
)
POINTWISE = struct_of(
    (ADDRESS, "in out weights bias gates added"),
    (INT, "rows in_pitch pitch depth window_rows swish relu stride height width in_height in_width"),
)
STRUCTS = {
    "first": struct_of(
        (ADDRESS, "in out weights"),
        (INT, "pictures in_height in_width height width pitch stride"),
        (FLOAT, "scale shift"),
    ),
    "space_1": DEPTHWISE,
    "space_2": DEPTHWISE,
    "time_5": DEPTHWISE,
    "gate": struct_of((ADDRESS, "sums out narrow narrow_bias wide wide_bias"), (INT, "strips values pitch channels")),
    **dict.fromkeys(("pointwise_32", "pointwise_64", "pointwise_96"), POINTWISE),
}


class X3dSession(CudaSession):
    """An X3D network on a GPU. Raises ModelError; CompilerMissing."""

    def __init__(
        self,
        spec: ModelSpec,
        gpu: "CudaGpu",
        cache: Path,
        options: ComputeOptions,
        net: X3dNet,
        pictures_stay: bool = False,
    ) -> None:
        gpu.enter()
        with gpu.guarded():
            self._kernels = _Kernels(gpu, net, cache)
        super().__init__(net.rest, spec, gpu, options, pictures_stay)

    def close(self) -> None:
        """Free the GPU's memory."""
        super().close()
        self._kernels.free()

    def _load(self, model: Content, tf32: bool, search: str, layout: str) -> Any:
        """Return an object with the ONNX Runtime API that the base class uses, of the network and the rest."""
        rest = super()._load(model, tf32, search, layout)
        return SimpleNamespace(
            io_binding=lambda: _Binding(rest.io_binding()),
            get_inputs=lambda: [compact.declared(tensor) for tensor in self.spec.inputs],
            get_outputs=rest.get_outputs,
            run_with_iobinding=lambda binding, options: rest.run_with_iobinding(binding.rest, options),
        )

    def _go(self, binding: Any) -> None:
        pointer, shape = binding.given
        body, inner = self._kernels.launch(pointer, shape[:4], self._runs)
        if self._read_on_host:
            self._runs.synchronize()
        binding.rest.bind_input(BODY, "cuda", self._gpu.number, np.float16, inner, body)
        super()._go(binding)


class _Binding:
    """The tensors of one batch."""

    def __init__(self, rest: Any) -> None:
        self.rest = rest
        self.bind_output, self.copy_outputs_to_cpu = rest.bind_output, rest.copy_outputs_to_cpu
        self.given: tuple[int, tuple[int, ...]] = (0, ())

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, pointer: int) -> None:
        self.given = pointer, tuple(shape)


class _Launches(NamedTuple):
    """What `_Kernels` launches for one shape."""

    steps: Sequence[Step]
    values: Sequence[Any]
    shape: tuple[int, ...]


class _Kernels:
    """The launches of a network on a GPU, by shape, its constants, and the memory between them."""

    def __init__(self, gpu: "CudaGpu", net: X3dNet, cache: Path) -> None:
        self._gpu, self._net = gpu, net
        images = [image_for(gpu.facts.capability, cache, source) for source in (SOURCE, POINTWISE_SOURCE)]
        own, shared = (gpu.driver.module_from_buffer(image) for image in images)
        self._functions = {
            name: (shared if name.startswith("pointwise") else own).get_function(name) for name in STRUCTS
        }
        device, known = gpu.driver.Context.get_device(), gpu.driver.device_attribute
        most = device.get_attribute(known.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self._room = Room(device.get_attribute(known.MULTIPROCESSOR_COUNT), most)
        for name, function in self._functions.items():
            if name.startswith("pointwise"):
                function.set_attribute(gpu.driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
        self._memory: dict[str, Block] = {}
        self._constants: Block | None = None  # the same for all shapes
        self._made: dict[Shape, _Launches] = {}

    def launch(self, given: int, shape: Shape, stream: Any) -> tuple[int, tuple[int, ...]]:
        """Queue all layers on a stream; return the address of the last value, and its shape."""
        with self._gpu.guarded():
            launches = self._made.get(shape) or self._prepared(shape, stream)
            launches.values[0]["in"] = given
            for step, values in zip(launches.steps, launches.values, strict=True):
                block, function = (step.threads, 1, 1), self._functions[step.kernel]
                function(values[()], grid=step.grid, block=block, stream=stream, shared=step.shared)
        return self._memory[OUTPUT].pointer, launches.shape

    def _prepared(self, shape: Shape, stream: Any) -> "_Launches":
        """The launches for a shape; the memory between them is that of the largest shape."""
        plan = Steps(self._net, shape, self._room)
        if any(nbytes > self._memory[name].nbytes for name, nbytes in plan.nbytes.items() if name in self._memory):
            stream.synchronize()  # earlier batches use what is let go here, and others may then take it
            self._made, self._memory = {}, {}  # the launches of other shapes have the old addresses
        for name, nbytes in plan.nbytes.items():
            if name not in self._memory:
                self._memory[name] = compact.between(self._gpu, nbytes)
        addresses = self._addresses(plan.steps)
        values = []
        for step in plan.steps:
            each = np.zeros((), STRUCTS[step.kernel])
            for field, number in step.numbers.items():
                each[field] = number
            for field, name in step.memory.items():
                each[field] = self._memory[name].pointer if name != INPUT else 0
            for field in step.constants:
                each[field] = next(addresses)
            values.append(each)
        while len(self._made) >= _MOST_SHAPES:
            del self._made[next(iter(self._made))]
        steps = [replace(step, constants={}) for step in plan.steps]  # they are on the GPU now
        made = self._made[shape] = _Launches(steps, values, (*plan.shape, plan.channels))
        return made

    def _addresses(self, steps: Sequence[Step]) -> Iterator[int]:
        """Yield where the constants of all steps are on the GPU, in order; the first call copies them there."""
        arrays = [array for step in steps for array in step.constants.values()]
        begins = np.cumsum([0, *(aligned(array.nbytes) for array in arrays)])
        if self._constants is None:
            together = np.zeros(begins[-1], np.uint8)
            for begin, array in zip(begins, arrays, strict=False):
                together[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self._constants = copied(self._gpu, together)
        yield from self._constants.pointer + begins

    def free(self) -> None:
        """Give the memory back."""
        self._memory, self._made, self._constants = {}, {}, None

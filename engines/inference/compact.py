"""Runs compact upscalers on a GPU by kernels of rigflow's own: NVIDIA GPUs since Ampere, in float16.

Bias and activation are part of each convolution, which ONNX Runtime computes apart: a layer is read and written once.
The sums of a pixel are always made in the same order, whatever the batch and wherever in a tile the pixel is.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import Content
from engines.cuda.copies import copied
from engines.cuda.kernels import ADDRESS, FLOAT, INT, image_for, struct_of
from engines.heads.reductions import ByteValues, Reduction, Stays
from engines.inference.compact_graph import CHANNELS, CompactNet, Layer
from engines.inference.cuda import CudaSession
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_profile import ComputeOptions
from schemas.text import size

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block

SOURCE = Path(__file__).parents[1] / "cuda" / "compact.cu"
COMPACT = struct_of(
    (ADDRESS, "in out weights bias slope pictures"),
    (INT, "frames height width factor as_bytes places"),
    (FLOAT, "scale black span"),
)
_FIRST_THREADS, _TEAM_THREADS = 128, 128
_WEIGHTS_BYTES, _HALO_BYTES = 9 * CHANNELS * 128, 6 * 34 * 128  # see compact.cu


class CompactSession(CudaSession):
    """A compact upscaler on a GPU. Raises ModelError; CompilerMissing."""

    def __init__(
        self,
        model: Content,
        spec: ModelSpec,
        gpu: "CudaGpu",
        cache: Path,
        options: ComputeOptions,
        net: CompactNet,
        pictures_stay: bool = False,
    ) -> None:
        gpu.enter()
        with gpu.guarded():
            self._kernels = _Kernels(gpu, net, image_for(gpu.facts.capability, cache, SOURCE))
        self._net = net
        self._pictures: ByteValues | None = None
        super().__init__(model, spec, gpu, options, pictures_stay)

    def close(self) -> None:
        """Free the GPU's memory."""
        super().close()
        self._kernels.free()

    def reduce(self, reductions: Sequence[Reduction]) -> None:
        """See `CudaSession.reduce`. Pictures of bytes are made by the last layer."""
        self._pictures = next((each for each in reductions if _is_picture(each)), None)  # type: ignore[assignment]
        others = [each for each in reductions if each is not self._pictures]
        super().reduce([*others, Stays(self._net.output)] if self._pictures else others)
        self._made.clear()

    def _load(self, model: Content, tf32: bool, search: str, layout: str) -> Any:
        """Return an object with the ONNX Runtime API that the base class uses: bindings and declared tensors."""
        outputs = [TensorSpec(name=self._net.output, dtype="float32", shape=("n", 3, "height", "width"))]
        return SimpleNamespace(
            io_binding=_Binding,
            get_inputs=lambda: [declared(tensor) for tensor in self.spec.inputs],
            get_outputs=lambda: [declared(tensor) for tensor in outputs],
        )

    def _queue(
        self, binding: Any, inputs: Mapping[str, Any], computed: int
    ) -> Callable[[Sequence[Any]], dict[str, Any]]:
        """Queue the layers; the shapes of the output follow from those of the input."""
        [(name, array)] = inputs.items()
        _, height, width, _ = array.shape
        factor = self._net.factor
        size = factor * height, factor * width
        made = (np.dtype(np.uint8), (*size, 3)) if self._pictures else (np.dtype(np.float32), (3, *size))
        self._made[((name, tuple(array.shape[1:])),)] = {self._net.output: made}
        binding.shape = (computed, height, width)
        return super()._queue(binding, inputs, computed)

    def _go(self, binding: Any) -> None:
        given, made = binding.pointers[self._net.input], binding.pointers[self._net.output]
        self._kernels.launch(given, made, binding.shape, self._runs, self._pictures)


class _Kernels:
    """The layers of a network on a GPU, and the memory between them."""

    def __init__(self, gpu: "CudaGpu", net: CompactNet, image: bytes) -> None:
        self._gpu, self._net = gpu, net
        driver = gpu.driver
        device = driver.Context.get_device()
        most = device.get_attribute(driver.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        teams = 3 if most >= _WEIGHTS_BYTES + 3 * _HALO_BYTES else 1
        self._blocks = device.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT)
        self._shared, self._threads = _WEIGHTS_BYTES + teams * _HALO_BYTES, teams * _TEAM_THREADS
        module = driver.module_from_buffer(image)
        self._first = module.get_function("first")
        self._middle, self._last = (module.get_function(f"{name}_{teams}") for name in ("middle", "last"))
        for function in (self._middle, self._last):
            function.set_attribute(driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, self._shared)
        self._layers = [[copied(gpu, array) for array in packed(layer)] for layer in net.layers]
        self._between: list[Block] = []

    def launch(
        self, given: int, made: int, shape: tuple[int, int, int], stream: Any, pictures: ByteValues | None
    ) -> None:
        """Queue all layers on a stream; the last one makes `pictures`, or floats."""
        frames, height, width = shape
        with self._gpu.guarded():
            nbytes = frames * height * width * CHANNELS * 2
            if not self._between or self._between[0].nbytes < nbytes:
                stream.synchronize()  # earlier batches use what is let go here, and others may then take it
                self._between = []
                self._between = [between(self._gpu, nbytes) for _ in range(2)]
            one, two = (block.pointer for block in self._between)
            values = np.zeros((), COMPACT)
            values["frames"], values["height"], values["width"] = shape
            values["factor"], values["scale"] = self._net.factor, self._net.scale
            if pictures:
                values["as_bytes"] = 1
                values["places"] = sum(pictures.order.index(colour) << 2 * colour for colour in range(3))
                values["black"] = pictures.black
                values["span"] = np.float32(pictures.white) - np.float32(pictures.black)
            for number, blocks in enumerate(self._layers):
                last = number == len(self._layers) - 1
                values["in"], values["out"] = one if number else given, made if last else two
                values["weights"], values["bias"], values["slope"] = (block.pointer for block in blocks)
                values["pictures"] = given if last and self._net.adds_picture else 0
                if number:
                    function, threads, shared = self._last if last else self._middle, self._threads, self._shared
                else:
                    function, threads, shared = self._first, _FIRST_THREADS, 0
                grid = (self._blocks if number else 16 * self._blocks, 1)
                function(values[()], grid=grid, block=(threads, 1, 1), stream=stream, shared=shared)
                one, two = two, one

    def free(self) -> None:
        """Give the memory back."""
        self._layers, self._between = [], []


def between(gpu: "CudaGpu", nbytes: int) -> "Block":
    """Memory for values between layers. Raises ModelError: the GPU has not as much."""
    try:
        return gpu.memory.take(nbytes)
    except gpu.driver.MemoryError as error:
        what = f"own kernels find no {size(nbytes)} of free memory on {gpu.name}"
        raise ModelError(what, "compute the model with smaller batches, or without own kernels") from error


def packed(layer: Layer) -> tuple[Array, Array, Array]:
    """Weights, bias and slope as the kernels read them; channels up to 64 are zeros.

    Of the first layer float32 `[27, 64]`, of others float16 `[9, 64 out, 64 in]`.
    """
    out, into = layer.weights.shape[:2]
    full = np.zeros((CHANNELS, into, 3, 3), np.float32)
    full[:out] = layer.weights
    by_place = full.transpose(2, 3, 1, 0).reshape(9 * into, CHANNELS)
    turned = by_place.reshape(9, into, CHANNELS).transpose(0, 2, 1)
    weights: Array = by_place if into == 3 else turned.astype(np.float16)
    ends = (np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32))
    for end, values in zip(ends, (layer.bias, layer.slope), strict=True):
        end[:out] = values
    return np.ascontiguousarray(weights), *ends


def _is_picture(reduction: Reduction) -> bool:
    """Whether pictures of three colours are made of the output."""
    return isinstance(reduction, ByteValues) and sorted(reduction.order) == [0, 1, 2] and reduction.channels == 1


class _Binding:
    """The addresses of the tensors of one batch, and its shape: frames, height, width."""

    def __init__(self) -> None:
        self.pointers: dict[str, int] = {}
        self.shape = (0, 0, 0)

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, pointer: int) -> None:
        self.pointers[name] = pointer

    bind_output = bind_input


def declared(tensor: TensorSpec) -> SimpleNamespace:
    """A tensor as ONNX Runtime declares one."""
    return SimpleNamespace(name=tensor.name, type=f"tensor({tensor.dtype})", shape=list(tensor.shape))

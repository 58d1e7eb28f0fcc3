"""Batches that are recorded as CUDA graphs: one call queues all kernels of a model.

ONNX Runtime can record runs by itself, but for each thread apart, and while it does, calls of CUDA on other threads
fail, such as those of decoders (`cudaStreamCaptureModeGlobal`). Here a run is recorded by the thread that loads the
model, in the mode of that thread alone, before the process works, and any thread launches it. A graph reads and writes
the addresses that it was recorded with, so each slot of a session has blocks and a graph of its own.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.cuda.driver_calls import CallFailed
from engines.inference.gather import gather
from engines.inference.reasons import one_line
from engines.inference.session import RowBatch
from engines.part import Array
from schemas.errors import ModelError, RigflowError
from schemas.model import ModelSpec

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block

# ONNX Runtime plans its memory in one run and allocates it in the next; a run that is recorded can allocate none
_RUNS_BEFORE = 3
_UNLIKE = 0xA5  # in all bytes of outputs before a graph writes them


def can_be_recorded(card: ModelSpec) -> bool:
    """Return whether all batches of a model can have inputs of the same shapes: their sizes are fixed, it has no state.

    Sizes of outputs are known from a first run.
    """
    return not card.state_outputs and all(isinstance(size, int) for each in card.inputs for size in each.shape[1:])


@dataclass(frozen=True, eq=False)
class Recording:
    """A batch of a session as a graph, and the blocks that it reads and writes, by the names of inputs and outputs."""

    gpu: "CudaGpu"
    graph: int
    inputs: "Mapping[str, Block]"
    outputs: "Mapping[str, Block]"

    def launch(self, stream: Any) -> None:
        """Queue the batch. Raises CallFailed."""
        self.gpu.calls.launch_graph(self.graph, stream.handle)

    def owns(self, block: "Block") -> bool:
        """Return whether the next launch overwrites a block."""
        return any(block is each for each in self.outputs.values())

    def close(self) -> None:
        """Destroy the graph. Hold the blocks until a batch that is queued is over."""
        self.gpu.calls.end_graph(self.graph)


class Recorder:
    """Records batches of a session of ONNX Runtime that computes on `runs`, and tests each recording."""

    def __init__(self, gpu: "CudaGpu", name: str, session: Any, options: Any, fills: Any, runs: Any) -> None:
        self._gpu, self._name, self._session, self._options = gpu, name, session, options
        self._fills, self._runs = fills, runs

    def record(
        self, given: Mapping[str, Array], shapes: "Mapping[str, tuple[Any, tuple[int, ...]]] | None"
    ) -> Recording:
        """Record a batch as large as the one `given`; of outputs, `shapes` has dtypes and shapes of rows.

        The outputs of `given` must be the same bits by the graph and without it. Raises ModelError, DeviceLost.
        """
        if shapes is None:
            raise self._refusal("the shapes of its inputs or outputs are not fixed")
        try:
            return self._tested(given, shapes)
        except RigflowError:
            raise
        except Exception as error:  # the runtime's own classes share no base below Exception
            if not self._gpu.works():
                raise self._gpu.lost(error) from error
            raise self._refusal(one_line(error)) from error

    def _tested(self, given: Mapping[str, Array], shapes: "Mapping[str, tuple[Any, tuple[int, ...]]]") -> Recording:
        gpu, rows = self._gpu, len(next(iter(given.values())))
        sizes = {name: rows * prod(row) * dtype.itemsize for name, (dtype, row) in shapes.items()}
        inputs = {name: gpu.memory.take(max(1, array.nbytes)) for name, array in given.items()}
        outputs = {name: gpu.memory.take(max(1, nbytes)) for name, nbytes in sizes.items()}
        binding = self._session.io_binding()
        for name, array in given.items():
            gpu.driver.memset_d8_async(inputs[name].pointer, 0, array.nbytes, self._runs)
            binding.bind_input(name, "cuda", gpu.number, array.dtype, array.shape, inputs[name].pointer)
        for name, (dtype, row) in shapes.items():
            binding.bind_output(name, "cuda", gpu.number, dtype, (rows, *row), outputs[name].pointer)
        recording = Recording(gpu, self._recorded(binding), inputs, outputs)
        agrees = False
        try:
            agrees = self._agrees(recording, binding, given, sizes)
        finally:
            if not agrees:
                recording.close()
        if not agrees:
            raise self._refusal("its answers would have other bits")
        return recording

    def _recorded(self, binding: Any) -> int:
        """What a run queues, as a graph; nothing of it runs. Before, ONNX Runtime has its memory."""
        calls, stream = self._gpu.calls, self._runs.handle
        for _ in range(_RUNS_BEFORE):
            self._session.run_with_iobinding(binding, self._options)
        self._runs.synchronize()
        with self._gpu.capturing:
            if self._gpu.works_on_media:
                raise self._refusal("this process works already, and no other thread may use the GPU meanwhile")
            calls.begin_capture(stream)
            try:
                self._session.run_with_iobinding(binding, self._options)
            except BaseException:
                with contextlib.suppress(CallFailed):
                    calls.end_graph(calls.end_capture(stream))
                raise
            return calls.end_capture(stream)

    def _agrees(self, recording: Recording, binding: Any, given: Mapping[str, Array], sizes: Mapping[str, int]) -> bool:
        """Whether a recording computes other rows than those it was recorded with as the session does without it."""
        held = []
        for name, array in given.items():
            held += gather(self._gpu, recording.inputs[name].pointer, RowBatch.all_of(array), len(array), self._fills)
        self._fills.synchronize()
        del held
        self._session.run_with_iobinding(binding, self._options)
        expected = self._copies(recording.outputs, sizes)
        for name, nbytes in sizes.items():
            self._gpu.driver.memset_d8_async(recording.outputs[name].pointer, _UNLIKE, nbytes, self._runs)
        recording.launch(self._runs)
        return self._copies(recording.outputs, sizes) == expected

    def _copies(self, blocks: "Mapping[str, Block]", sizes: Mapping[str, int]) -> list[bytes]:
        """The bytes of outputs, once what is queued is over."""
        staged = {name: self._gpu.pinned.take(max(1, nbytes)) for name, nbytes in sizes.items()}
        arrays = {name: staged[name].host(np.uint8, (nbytes,)) for name, nbytes in sizes.items()}
        for name, array in arrays.items():
            self._gpu.download(array, blocks[name].pointer, self._runs)
        self._runs.synchronize()
        return [array.tobytes() for array in arrays.values()]

    def _refusal(self, why: str) -> ModelError:
        return ModelError(f"model `{self._name}` cannot be recorded as a CUDA graph: {why}")

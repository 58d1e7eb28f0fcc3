"""Runs ONNX Runtime on a GPU: inputs are gathered there, and two batches are in flight.

A batch is filled on one stream while the batch before it runs on another. Memory is allocated only for the first batch
of each shape: each input has two slots, and outputs use blocks of a pool.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from engines.content import Content
from engines.cuda.reductions import Output, Reducer
from engines.heads.reductions import Reduction
from engines.inference.cuda_loading import leave_loaded, load_on_gpu, on_host
from engines.inference.gather import gather
from engines.inference.onnxruntime import tensors_of
from engines.inference.queued import Queued
from engines.inference.reasons import one_line
from engines.inference.recorded import Recorder, Recording, can_be_recorded
from engines.inference.session import RowBatch, check_inputs, check_model_card
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.model_profile import NOT_TUNED, ComputeOptions

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu
    from engines.cuda.memory import Block

_ROWS = 16
_SMALL_BYTES, _MOST_SMALL = 256 << 10, 64  # of a batch of small pictures, which takes no longer than 16 of them
_FREE_BYTES = 16 << 20  # of a batch of rows whose size the model leaves open
_TILED_PIXELS = 1 << 20  # of a batch: models of tiles keep dozens of floats for each pixel


class CudaSession:
    """A model on a GPU. Raises ModelError: not an ONNX file, not as `spec` states, or ONNX Runtime has no CUDA.

    Batches that are started have one size for rows of one size, and are padded if there are fewer rows. Otherwise
    cuBLAS and cuDNN take another algorithm for another number of rows, and a row's answer depends on its neighbours;
    and at each change cuDNN plans again, which takes as long as dozens of rows.

    After `record`, full batches are CUDA graphs: see `engines.inference.recorded`.

    With `pictures_stay`, outputs `[N, H, W]` uint8 stay on the GPU, as `GpuRows`, for its encoder. Of `options`, the
    model is in their precision already, but for TF32.
    """

    in_flight = 2
    _read_on_host: frozenset[str] = frozenset()  # inputs of the runtime's session that it copies as they are bound
    _made_on_host: frozenset[str] = frozenset()

    def __init__(
        self,
        model: Content,
        spec: ModelSpec,
        gpu: "CudaGpu",
        options: ComputeOptions = NOT_TUNED,
        pictures_stay: bool = False,
    ) -> None:
        self.spec = spec
        self._pictures_stay = pictures_stay
        self._gpu = gpu
        gpu.enter()
        with gpu.guarded():
            self._fills, self._runs, self._reads = (gpu.new_stream() for _ in range(3))
        shapes = {tensor.name: tensor.shape[1:] for tensor in spec.inputs}
        fixed = all(isinstance(size, int) for shape in shapes.values() for size in shape)
        self._one_row: dict[str, Any] = shapes if fixed else {}
        singly = any(tensor.shape[:1] == (1,) for tensor in spec.inputs)
        usual = _rows_at_once(spec)
        self.batch_rows = 1 if singly else options.batch or usual
        pictures = all(tensor.dtype == "uint8" for tensor in spec.inputs) and not _tile_of(spec)
        self._grows = pictures and not fixed and not singly and not options.batch
        self.batch_bytes = (
            sum(zeros.nbytes for zeros in self._zeros().values()) if fixed else _FREE_BYTES * self.batch_rows // usual
        )
        search = options.search.upper() or ("EXHAUSTIVE" if fixed and not singly else "HEURISTIC")
        self._recordings: Sequence[Recording] = ()  # of each slot
        self._can_record = options.graph
        self._session: Any = self._load(model, options.precision == "tf32", search, options.layout)
        check_model_card(spec, *tensors_of(self._session))
        self._outputs = [tensor.name for tensor in spec.outputs]
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._options.add_run_config_entry("gpu_graph_id", "-1")  # ONNX Runtime itself records nothing
        self._slots: list[dict[str, Block]] = [{} for _ in range(self.in_flight)]
        self._turn = 0
        self._made: dict[tuple[object, ...], dict[str, tuple[Any, tuple[int, ...]]] | None] = {}  # by shapes of inputs
        # whether a state has other rows than the windows
        self._states_apart = bool(spec.state_outputs) and any(isinstance(each.shape[0], str) for each in spec.inputs)
        self._any_size = any(isinstance(size, str) for tensor in spec.outputs for size in tensor.shape[1:])
        self._reducer = Reducer(gpu, (), self._reads)

    def reduce(self, reductions: Sequence[Reduction]) -> None:
        """From now on, leave of outputs only what heads with these reductions need; see `engines.heads.reductions`."""
        self._reducer = Reducer(self._gpu, reductions, self._reads)

    def run(self, inputs: Mapping[str, "Array | RowBatch"]) -> dict[str, Any]:
        """Return the outputs of these rows by name, in a batch of their number. Raises ModelError and DeviceLost.

        Where batches are recorded, it is padded to a full one.
        """
        rows: int = next(iter(inputs.values())).shape[0]
        return self._started(inputs, max(rows, self.batch_rows) if self._recordings else rows)()

    def start(self, inputs: Mapping[str, "Array | RowBatch"], room: int = 0) -> Callable[[], dict[str, Any]]:
        """Queue a batch, padded; return a function that waits for its outputs. Two may be queued before the first wait.

        It is padded to `room` rows, which depend on its pipeline alone, or to as many as the session takes.
        Raises ModelError and DeviceLost, here or in that function.
        """
        return self._started(inputs, self._computed(inputs, room))

    def _started(self, inputs: Mapping[str, "Array | RowBatch"], computed: int) -> Callable[[], dict[str, Any]]:
        """Queue a batch of `computed` rows."""
        check_inputs(self.spec, inputs)
        gpu = self._gpu
        gpu.enter()
        with gpu.guarded():
            recording = self._recording(self._turn, computed)
            slot = dict(recording.inputs) if recording else self._slots[self._turn]
            self._turn = (self._turn + 1) % self.in_flight
            held, filled = list[Any]([recording]), []
            for tensor in self.spec.inputs:
                array = inputs[tensor.name]
                rows = array if isinstance(array, RowBatch) else RowBatch.all_of(array)
                count = rows.shape[0] if tensor.state else computed
                nbytes = rows.nbytes // max(1, rows.shape[0]) * count
                block = slot.get(tensor.name)
                if block is None or block.nbytes < nbytes:
                    slot[tensor.name] = block = gpu.memory.take(max(1, nbytes))
                held += gather(gpu, block.pointer, rows, count, self._fills)
                filled.append((tensor.name, rows.dtype, (count, *rows.shape[1:]), block.pointer))
            self._wait_for_fills()
            binding: Any = recording or self._session.io_binding()
            for name, *given in () if recording else filled:
                binding.bind_input(name, "cuda", gpu.number, *given)
            finish = self._queue(binding, inputs, computed)
        return lambda: finish(held)

    def warm_up(self) -> None:
        """Run zeros; a model with free inner dimensions is skipped, because the sizes that it accepts are unknown."""
        if self._one_row:
            self.run(self._zeros())

    def _zeros(self) -> dict[str, Array]:
        rows = self.batch_rows
        return {tensor.name: np.zeros((rows, *self._one_row[tensor.name]), tensor.dtype) for tensor in self.spec.inputs}

    def record(self, given: Mapping[str, Array]) -> None:
        """Record full batches, and test that graphs give for a batch `given` the bits of the session without them.

        The session is closed if that fails. Raises ModelError: a call in a run cannot be recorded; DeviceLost.
        """
        try:
            self.warm_up()
            shapes = self._made.get(_kind_of(given)) if can_be_recorded(self.spec) else None
            recorder = Recorder(self._gpu, self.spec.name, self._session, self._options, self._fills, self._runs)
            with self._gpu.guarded():
                for _ in self._slots:
                    self._recordings = [*self._recordings, recorder.record(given, shapes)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the GPU's memory; see `leave_loaded`."""
        self._gpu.enter()
        self._end_recordings()
        leave_loaded(self._session, self._fills, self._runs, self._reads)
        self._session = None
        for slot in self._slots:
            slot.clear()

    def most_rows(self, row_bytes: int) -> int:
        """Return how many rows of so many bytes a batch has at most."""
        most = min(self.batch_rows, self.batch_bytes // max(1, row_bytes))
        return max(most, min(_MOST_SMALL, _SMALL_BYTES // max(1, row_bytes))) if self._grows else most

    def _computed(self, inputs: Mapping[str, "Array | RowBatch"], room: int) -> int:
        """Return how many rows to compute for a batch that is started, by the bytes of a row."""
        rows = next(iter(inputs.values())).shape[0]
        most = self.most_rows(sum(array.nbytes for array in inputs.values()) // max(1, rows))
        return max(rows, min(room, most) if room else most)

    def _recording(self, turn: int, computed: int) -> Recording | None:
        """The recording of a slot. Once a batch has another size, there is none any more: kernels of ONNX Runtime keep
        what they planned for one size only, and graphs may refer to it.
        """
        if self._recordings and computed != self.batch_rows:
            self._end_recordings()
        return self._recordings[turn] if self._recordings else None

    def _end_recordings(self) -> None:
        for each in self._recordings:
            each.close()
        self._recordings = ()

    # running

    def _wait_for_fills(self) -> None:
        """Have runs wait for the inputs that are queued; this thread waits where the runtime copies some at once."""
        if self._read_on_host:
            self._fills.synchronize()
            return
        over = self._gpu.event()
        over.record(self._fills)
        self._runs.wait_for_event(over)

    def _queue(
        self, binding: Any, inputs: Mapping[str, Any], computed: int
    ) -> Callable[[Sequence[Any]], dict[str, Any]]:
        """Queue the model and the copies of its outputs; return a function that waits for them."""
        gpu = self._gpu
        kind = _kind_of(inputs)
        count = next(iter(inputs.values())).shape[0]
        shapes = self._made.get(kind)
        if shapes is None:
            return self._copied(binding, kind, count, computed)
        recording, outputs = (binding if isinstance(binding, Recording) else None), {}
        for name in self._outputs:
            dtype, row = shapes[name]
            if recording:
                outputs[name] = Output(dtype, (count, *row), recording.outputs[name])
                continue
            nbytes = computed * prod(row) * dtype.itemsize
            outputs[name] = Output(dtype, (count, *row), gpu.memory.take(max(1, nbytes)))
            binding.bind_output(name, "cuda", gpu.number, dtype, (computed, *row), outputs[name].block.pointer)
        try:
            if recording:
                recording.launch(self._runs)
            else:
                self._go(binding)
        except ModelError:
            if not self._any_size:
                raise
            copied = self._copied(binding, kind, count, computed)
            self._made[kind] = None  # the shapes of outputs depend on more than the shapes of inputs
            return copied
        reduced = self._reducer.queue(outputs, self._runs)
        stay = [name for name, each in reduced.whole.items() if self._stays(outputs[name].dtype, each.shape)]
        return Queued(gpu, self._runs, reduced, stay, recording).finish

    def _stays(self, dtype: Any, shape: tuple[int, ...]) -> bool:
        """Whether an output is pictures for the GPU's encoder; `dtype` is that of the model."""
        return self._pictures_stay and dtype == np.uint8 and len(shape) == 3

    def _copied(
        self, binding: Any, kind: tuple[object, ...], count: int, computed: int
    ) -> Callable[[Sequence[Any]], dict[str, Any]]:
        """Run a batch whose outputs have unknown shapes: ONNX Runtime allocates them, and all are copied."""
        gpu = self._gpu
        for name in self._outputs:
            binding.bind_output(name, "cuda", gpu.number)
        self._go(binding)
        self._runs.synchronize()
        arrays = dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
        alike = not self._states_apart and all(array.ndim and len(array) == computed for array in arrays.values())
        if kind not in self._made and alike:
            self._made[kind] = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        gpu.counters.from_gpu_bytes += sum(array.nbytes for array in arrays.values())
        return lambda _: {name: array[:count] for name, array in arrays.items()}

    def _go(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:  # the runtime's own classes share no base below Exception
            if not self._gpu.works():
                raise self._gpu.lost(error) from error
            raise ModelError(f"model `{self.spec.name}` failed: {one_line(error)}") from error
        if self._made_on_host:
            self._gpu.synchronize()

    def _load(self, model: Content, tf32: bool, search: str, layout: str) -> Any:
        given = model, self.spec.name, self._gpu, tf32, search, self._runs
        session = load_on_gpu(*given, replays=self._can_record, layout=layout)
        self._read_on_host, self._made_on_host = on_host(session)
        return session


def _kind_of(inputs: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple((name, tuple(array.shape[1:])) for name, array in sorted(inputs.items()))


def _rows_at_once(spec: ModelSpec) -> int:
    tile = _tile_of(spec)
    return min(_ROWS, max(1, _TILED_PIXELS // prod(tile))) if tile else _ROWS


def _tile_of(spec: ModelSpec) -> tuple[int, int] | None:
    return next((each.picture.tile for each in spec.inputs if each.picture and each.picture.tile), None)

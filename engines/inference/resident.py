"""Graphs of ONNX Runtime whose values stay on a device from one run to the next, such as a decoder's keys and values.

A value is an `OrtValue`. On the CPU, those of NumPy's arrays share their memory, and outputs are not copied.
"""

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines.content import Content
from engines.continuous import Stopped
from engines.inference.onnxruntime import ARENA, load
from engines.inference.place import Place, Values
from engines.inference.reasons import one_line
from engines.part import Array
from schemas.errors import ModelError

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_MOST_DROPPED = 64  # values of a GPU that are kept for queued runs


def value(array: Array) -> Any:
    """An array on the host as a value; the array must not change as long as the value lives."""
    # `ascontiguousarray` would make one dimension of none
    return ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))


class HostPlace:
    """The CPU: one thread, in the arena of all sessions."""

    on_gpu = False
    device = ("cpu", 0)

    def __init__(self, name: str) -> None:
        self._name = name
        self._options = ort.RunOptions()

    def load(self, model: Content, replays: bool = False) -> Any:
        """See `engines.inference.onnxruntime.load`."""
        return load(model, self._name)

    def copied_when_bound(self, session: Any) -> frozenset[str]:
        """See `Place`: none."""
        return frozenset()

    def run(self, session: Any, inputs: Values, outputs: Sequence[str]) -> dict[str, Any]:
        """See `Place`."""
        binding = session.io_binding()
        try:
            for name, given in inputs.items():
                binding.bind_ortvalue_input(name, given)
            for name in outputs:
                binding.bind_output(name, "cpu")
        except Exception as error:  # the runtime's own classes share no base below Exception
            raise ModelError(f"model `{self._name}` failed: {one_line(error)}") from error
        self.go(session, binding)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def go(self, session: Any, binding: Any, replay: int = -1) -> None:
        """See `Place`."""
        self._options.terminate = False
        try:
            ARENA.run_bound(session, binding, self._options)
        except Exception as error:  # the runtime's own classes share no base below Exception
            if self._options.terminate:
                raise Stopped from error
            raise ModelError(f"model `{self._name}` failed: {one_line(error)}") from error

    def stop(self) -> None:
        """See `Place`."""
        self._options.terminate = True

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """See `Place`: the system gives memory for it when it is used."""
        return value(np.zeros(shape, dtype))

    def held(self, array: Array) -> Any:
        """See `Place`."""
        return value(array)

    def update(self, given: Any, array: Array) -> None:
        """See `Place`."""
        given.update_inplace(array)

    def copy(self, source: int, target: int, size: tuple[int, int], pitch: int) -> None:
        """See `Place`."""
        for begin in range(0, size[0] * pitch, pitch):
            ctypes.memmove(target + begin, source + begin, size[1])

    def fetch(self, session: Any, inputs: Values, outputs: Sequence[str]) -> list[Array]:
        """See `Place`."""
        return [each.numpy() for each in self.run(session, inputs, outputs).values()]

    def read(self, given: Any) -> Array:
        """See `Place`."""
        return np.asarray(given.numpy())

    def close(self, session: Any) -> None:
        """Nothing: its memory is freed with it."""


class GpuPlace:
    """A GPU: all graphs compute on one stream, in order; only `fetch` and `read` wait for them.

    ONNX Runtime copies inputs of the host on that stream, too, and keeps the memory of each session for itself. The
    memory of `held` and `zeros` is another matter: all of a process have one arena, and are written at once, whatever
    is queued. Therefore such memory is given back only when the runs that were queued before its last use are over.
    """

    on_gpu = True

    def __init__(self, name: str, gpu: "CudaGpu", tf32: bool) -> None:
        self._name = name
        self._gpu = gpu
        self._tf32 = tf32
        self.device = ("cuda", gpu.number)
        gpu.enter()
        with gpu.guarded():
            self._stream = gpu.new_stream()
        self._dropped: deque[Any] = deque()  # values without a reference, which queued runs may still read
        self._on_host: dict[Any, tuple[frozenset[str], frozenset[str]]] = {}  # of each session: see `on_host`
        self._options: dict[int, Any] = {}
        self._queued = self._numbered(-1)

    def _numbered(self, replay: int) -> Any:
        """Options of a run that is queued, and recorded under a number; -1: it is not."""
        if replay not in self._options:
            options = self._options[replay] = ort.RunOptions()
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            options.add_run_config_entry("gpu_graph_id", str(replay))
        return self._options[replay]

    def load(self, model: Content, replays: bool = False) -> Any:
        """See `engines.inference.cuda_loading.load_on_gpu`.

        Memory grows in large steps, because keys and values have another size at each token. cuDNN times nothing: the
        algorithm of a convolution would depend on it.
        """
        from engines.inference.cuda_loading import load_on_gpu, on_host

        given = model, self._name, self._gpu, self._tf32, "HEURISTIC", self._stream, "kNextPowerOfTwo"
        session = None
        if replays:
            with contextlib.suppress(ModelError):  # its graph has nodes that no recording can have
                session = load_on_gpu(*given, replays=True)
        session = session or load_on_gpu(*given)
        self._on_host[session] = on_host(session)
        return session

    def copied_when_bound(self, session: Any) -> frozenset[str]:
        """See `Place`: those that nodes without a kernel for GPUs read."""
        return self._on_host[session][0]

    def run(self, session: Any, inputs: Values, outputs: Sequence[str]) -> dict[str, Any]:
        """See `Place`."""
        return dict(zip(outputs, self._run(session, inputs, outputs, "cuda", self._queued), strict=True))

    def fetch(self, session: Any, inputs: Values, outputs: Sequence[str]) -> list[Array]:
        """See `Place`."""
        with self._waiting():
            made = [each.numpy() for each in self._run(session, inputs, outputs, "cpu", None)]
        self._gpu.counters.from_gpu_bytes += sum(array.nbytes for array in made)
        return made

    def read(self, given: Any) -> Array:
        """See `Place`."""
        self._synchronize()
        self._gpu.counters.from_gpu_bytes += (array := np.asarray(given.numpy())).nbytes
        return array

    def _run(self, session: Any, inputs: Values, outputs: Sequence[str], where: str, options: Any) -> list[Any]:
        read, made = self._on_host[session]
        with self._calling():
            if any(inputs[name].device_name() != "cpu" for name in read & inputs.keys()):
                self._stream.synchronize()  # such a value is copied as it is bound
            binding = session.io_binding()
            for name, given in inputs.items():
                binding.bind_ortvalue_input(name, given)
            for name in outputs:
                binding.bind_output(name, where, self._gpu.number if where == "cuda" else 0)
            session.run_with_iobinding(binding, options)
            if where == "cuda" and made.intersection(outputs):
                self._gpu.synchronize()
            return list(binding.get_outputs())

    def go(self, session: Any, binding: Any, replay: int = -1) -> None:
        """See `Place`."""
        with self._calling():
            session.run_with_iobinding(binding, self._numbered(replay))

    def stop(self) -> None:
        """Nothing: a run takes milliseconds."""

    def held(self, array: Array) -> Any:
        """See `Place`."""
        with self._calling():
            return self._lent(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self.device))

    def update(self, given: Any, array: Array) -> None:
        """See `Place`: `update_inplace` is on another stream, and a run does not wait for it."""
        with self._calling():
            self._gpu.driver.memcpy_htod_async(int(given.data_ptr()), np.ascontiguousarray(array), self._stream)

    def copy(self, source: int, target: int, size: tuple[int, int], pitch: int) -> None:
        """See `Place`."""
        with self._calling():
            copy = self._gpu.driver.Memcpy2D()
            copy.set_src_device(source)
            copy.set_dst_device(target)
            copy.height, copy.width_in_bytes = size
            copy.src_pitch = copy.dst_pitch = pitch
            copy(self._stream)

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """See `Place`."""
        with self._calling():
            return self._lent(ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), *self.device))

    def _lent(self, made: Any) -> Any:
        """A value whose memory is given to nothing else while queued runs may read it."""
        weakref.finalize(made, self._dropped.append, made._ortvalue).atexit = False
        if len(self._dropped) > _MOST_DROPPED:
            self._synchronize()
        return made

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """A block that waits for all runs that were queued before it."""
        over = [self._dropped.popleft() for _ in range(len(self._dropped))]
        yield
        over.clear()

    def _synchronize(self) -> None:
        with self._waiting(), self._gpu.guarded():
            self._stream.synchronize()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Calls of the runtime, whose errors are ours."""
        self._gpu.enter()
        try:
            yield
        except Exception as error:  # the runtime's own classes share no base below Exception
            if not self._gpu.works():
                raise self._gpu.lost(error) from error
            raise ModelError(f"model `{self._name}` failed: {one_line(error)}") from error

    def close(self, session: Any) -> None:
        """See `engines.inference.cuda_loading.leave_loaded`."""
        from engines.inference.cuda_loading import leave_loaded

        self._gpu.enter()
        self._synchronize()
        self._on_host.pop(session, None)
        leave_loaded(session)


def place_of(name: str, gpu: "CudaGpu | None", tf32: bool) -> Place:
    """The place where a model of that name is computed: a GPU, or the host without one."""
    return HostPlace(name) if gpu is None else GpuPlace(name, gpu, tf32)

"""The outputs of a batch that is queued on a GPU: what is copied to the host, and what stays there."""

from collections.abc import Collection, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from engines.cuda.arrays import rows_of
from engines.cuda.reductions import Output, Reduced
from engines.inference.recorded import Recording

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu


class Queued:
    """Queues the copies behind the batch, on its stream; `finish` waits for them.

    `stay` are the names of entire outputs that stay on the GPU, beside those that do for `reduced`. `recording`: the
    batch is one of its launches.
    """

    def __init__(
        self, gpu: "CudaGpu", runs: Any, reduced: Reduced, stay: Collection[str], recording: Recording | None
    ) -> None:
        self._gpu, self._runs, self._reduced = gpu, runs, reduced
        self._staying = {**reduced.staying, **{name: reduced.whole[name] for name in stay}}
        self._staged = {}
        for name, each in reduced.whole.items():
            if name not in stay:
                self._staged[name] = gpu.pinned.take(max(1, prod(each.shape) * each.dtype.itemsize))
                gpu.download(self._staged[name].host(each.dtype, each.shape), each.block.pointer, runs)
        if recording:
            self._staying = {name: self._apart(each, recording) for name, each in self._staying.items()}
        self._done = gpu.event()
        self._done.record(runs)

    def finish(self, held: Sequence[Any]) -> dict[str, Any]:
        """Wait, and return the outputs by name; `held` must live until then. Raises DeviceLost."""
        with self._gpu.guarded():
            self._done.synchronize()
            made: dict[str, Any] = self._reduced.selected()
        for name, block in self._staged.items():
            whole = self._reduced.whole[name]
            made[name] = block.host(whole.dtype, whole.shape).copy()
        for name, each in self._staying.items():
            made[name] = rows_of(self._gpu, each.block, each.shape, each.dtype)
        return made

    def _apart(self, output: Output, recording: Recording) -> Output:
        """An output that stays, or a copy of it: the next batch of its slot overwrites what its recording writes."""
        if not recording.owns(output.block):
            return output
        nbytes = prod(output.shape) * output.dtype.itemsize
        block = self._gpu.memory.take(max(1, nbytes))
        self._gpu.driver.memcpy_dtod_async(block.pointer, output.block.pointer, nbytes, self._runs)
        return Output(output.dtype, output.shape, block)

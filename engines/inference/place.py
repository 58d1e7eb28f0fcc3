"""What a device is to graphs whose values stay on it; `engines.inference.resident` has those that there are."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from engines.content import Content
from engines.part import Array

Values = Mapping[str, Any]


class Place(Protocol):
    """A device that graphs run on; `name` is for errors. All methods raise ModelError, DeviceLost."""

    on_gpu: bool
    device: tuple[str, int]  # as bindings of ONNX Runtime name it

    def load(self, model: Content, replays: bool = False) -> Any:
        """A session of a graph; `replays`: some of its runs will be recorded and replayed, if the device can."""
        ...

    def copied_when_bound(self, session: Any) -> frozenset[str]:
        """The inputs of a session that are copied as they are bound: a run does not see what is written into them
        later.
        """
        ...

    def run(self, session: Any, inputs: Values, outputs: Sequence[str]) -> dict[str, Any]:
        """The outputs of a graph, which stay on the device. Inputs may be on the host."""
        ...

    def fetch(self, session: Any, inputs: Values, outputs: Sequence[str]) -> list[Array]:
        """The outputs of a graph as arrays on the host."""
        ...

    def read(self, given: Any) -> Array:
        """A value as an array on the host."""
        ...

    def go(self, session: Any, binding: Any, replay: int = -1) -> None:
        """Run a graph whose inputs and outputs are bound. From 0 on `replay` is the number of the binding: the same
        one at each run, whose values keep their places. Raises Stopped after `stop`.
        """
        ...

    def stop(self) -> None:
        """Called by any thread: a run of `go` that takes long ends within a node of its graph, if it can."""
        ...

    def held(self, array: Array) -> Any:
        """A value on the device, a copy of an array; on the CPU the array itself."""
        ...

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """A value of zeros on the device."""
        ...

    def update(self, given: Any, array: Array) -> None:
        """Copy an array into a value of the device, in order with runs."""
        ...

    def copy(self, source: int, target: int, size: tuple[int, int], pitch: int) -> None:
        """Copy memory of the device from an address to another: `size` is so many pieces of so many bytes each, which
        begin `pitch` bytes apart. It is in order with runs.
        """
        ...

    def close(self, session: Any) -> None:
        """Give up a session."""
        ...

"""Memory of a GPU while runs are queued: what one of them reads stays as it was, and a copy is complete at once.

Also inputs that nodes without a kernel for GPUs read: ONNX Runtime copies them to the host as they are bound.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.cuda.copies import kept_table
from engines.cuda.gpu import CudaGpu
from engines.inference.cuda import CudaSession
from engines.inference.place import Place
from engines.inference.resident import place_of, value
from engines.inference.session import RowBatch, RowSelection
from schemas.model import ModelSpec, TensorSpec
from tests.host_gpu import on_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
LONG_SIDE, PRODUCTS = 4096, 24  # of a run that takes some 50 ms, while others are queued behind it
SIZE = 1 << 20


def graph(*nodes: Any, given: int = TensorProto.FLOAT, made: int = TensorProto.FLOAT, shape: Any = None) -> bytes:
    """`x` to `y`."""
    ends = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype in (("x", given), ("y", made))]
    one = numpy_helper.from_array(np.array(1, np.uint8), "one")
    whole = helper.make_graph(nodes, "order", ends[:1], ends[1:], [one])
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def shifting(shape: Any = None) -> bytes:
    """Bytes twice as large, by a node that only the processor has."""
    node = helper.make_node("BitShift", ["x", "one"], ["y"], direction="LEFT")
    return graph(node, given=TensorProto.UINT8, made=TensorProto.UINT8, shape=shape)


def long_graph() -> bytes:
    names = ["x", *(f"product{number}" for number in range(PRODUCTS - 1)), "y"]
    return graph(*(helper.make_node("MatMul", [one, "x"], [other]) for one, other in pairwise(names)))


class Queue:
    """A place with a run that takes long, and one that doubles numbers."""

    def __init__(self, place: Place, side: int = LONG_SIDE) -> None:
        self.place = place
        self._long = place.load(long_graph())
        self._twice = place.load(graph(helper.make_node("Add", ["x", "x"], ["y"])))
        self._zeros = place.zeros((side, side), np.float32)
        place.read(self.twice(place.zeros((SIZE,), np.float32)))
        self.delay()
        place.read(self.twice(self._zeros))  # the kernels of both are loaded now

    def delay(self) -> None:
        self.place.run(self._long, {"x": self._zeros}, ["y"])

    def twice(self, given: Any) -> Any:
        return self.place.run(self._twice, {"x": given}, ["y"])["y"]

    def fetched(self, given: Any) -> Any:
        return self.place.fetch(self._twice, {"x": given}, ["y"])[0]


@pytest.fixture(scope="module")
def queue(gpu: CudaGpu) -> Queue:
    return Queue(place_of("m", gpu, False))


def numbers(value: float) -> Any:
    return np.full((SIZE,), value, np.float32)


def test_a_value_that_a_queued_run_reads_is_not_overwritten(queue: Queue) -> None:
    for number in range(1, 6):
        queue.delay()
        made = queue.twice(queue.place.held(numbers(number)))  # without a reference now, and its run has not begun
        others = [queue.place.held(numbers(-1)), queue.place.zeros((SIZE,), np.float32)]
        assert (queue.place.read(made) == 2 * number).all()
        del others


def test_dropped_values_do_not_pile_up(queue: Queue, gpu: CudaGpu) -> None:
    before = gpu.used_bytes()
    for number in range(300):
        queue.place.held(numbers(number))
    assert gpu.used_bytes() - before < 150 * SIZE * 4


def test_inputs_of_the_host_are_copied_in_order_with_queued_runs(queue: Queue) -> None:
    queue.delay()
    made = [queue.twice(value(numbers(number))) for number in range(8)]
    fetched = queue.fetched(value(numbers(9)))
    assert (fetched == 18).all()
    for number, each in enumerate(made):
        assert (queue.place.read(each) == 2 * number).all()


def test_a_fetch_has_what_queued_runs_made(queue: Queue) -> None:
    for number in range(1, 4):
        queue.delay()
        made = queue.twice(queue.twice(queue.place.held(numbers(number))))
        assert (queue.fetched(made) == 8 * number).all()


@pytest.mark.parametrize("count", [1 << 10, 1 << 14, 1 << 20])
def test_a_table_is_complete_when_kernels_may_read_it(gpu: CudaGpu, count: int) -> None:
    gpu.enter()
    stream, last = gpu.new_stream(), gpu.pinned.take(4)
    for number in range(1, 301):
        tables: list[Any] = []
        address = kept_table(gpu, np.full(count, number, np.int32), tables)
        found = last.host(np.int32, (1,))
        gpu.download(found, address + 4 * (count - 1), stream)
        stream.synchronize()
        assert found[0] == number


def test_a_queued_value_is_complete_when_the_host_reads_it(queue: Queue) -> None:
    to_bytes = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT8)
    cast, shift = queue.place.load(graph(to_bytes, made=TensorProto.UINT8)), queue.place.load(shifting())
    assert queue.place.copied_when_bound(shift) == {"x"}
    for number in range(1, 4):
        queue.delay()
        made = queue.place.run(cast, {"x": queue.twice(queue.place.held(numbers(number)))}, ["y"])["y"]
        shifted = queue.place.run(shift, {"x": made}, ["y"])["y"]
        assert (queue.place.read(shifted) == 4 * number).all()


def test_rows_are_gathered_when_the_host_reads_them(gpu: CudaGpu) -> None:
    shape = (64, 64)
    ends = [(TensorSpec(name=name, dtype="uint8", shape=("N", *shape)),) for name in "xy"]
    spec = ModelSpec(name="twice", inputs=ends[0], outputs=ends[1], sha256="")
    session, behind = CudaSession(shifting(("N", *shape)), spec, gpu), gpu.memory.take(1 << 30)
    for number in range(1, 8):
        pixels = np.random.default_rng(number).integers(0, 128, (8, *shape), np.uint8)
        there: Any = on_gpu(gpu, pixels)
        for _ in range(100):  # the rows are gathered after some 50 ms
            gpu.driver.memset_d8_async(behind.pointer, number, behind.nbytes, session._fills)
        finish = session.start({"x": RowBatch([RowSelection(there, None, 0, len(pixels))])})
        assert (np.asarray(finish()["y"]) == 2 * pixels).all()
    session.close()

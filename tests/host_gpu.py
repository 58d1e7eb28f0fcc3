"""A GPU whose memory is the host's: the kernels' own source, built by a C++ compiler, run in its place.

What it shows of the arithmetic and of the code around it holds for a GPU; order and speed it cannot show.
"""

import contextlib
import ctypes
import functools
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.format import VideoFormat

from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import copied
from engines.cuda.driver_calls import CallFailed
from engines.cuda.kernels import SOURCE, STRUCTS
from engines.cuda.memory import Counters, Pool
from engines.machine import Gpu
from tests.kept_folders import kept_folder

COMPILER = shutil.which("g++") or shutil.which("clang++")
_LAUNCH = """
extern "C" void launch_{name}(const {struct} *given, unsigned across, unsigned down, unsigned threads) {{
    gridDim = {{across, down, 1}};
    blockDim = {{threads, 1, 1}};
    for (blockIdx.y = 0; blockIdx.y < down; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < across; blockIdx.x++)
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {name}(*given);
}}
"""
# the driver's calls that `burst.c` makes; of a late GPU, kernels run when an event is waited for
_DRIVER = """
#include <cstring>
#include <vector>
struct Queued { void *function; std::vector<char> given; unsigned across, down, threads; };
static std::vector<Queued> queued;
typedef void (*Kernel)(const void *, unsigned, unsigned, unsigned);
extern "C" int finish(void *) {
    for (Queued &q : queued) ((Kernel)q.function)(q.given.data(), q.across, q.down, q.threads);
    queued.clear();
    return 0;
}
extern "C" int launch_late(void *function, unsigned across, unsigned down, unsigned, unsigned threads, unsigned,
                           unsigned, unsigned, void *, void **given, void **) {
    const char *from = (const char *)given[0];
    queued.push_back({function, std::vector<char>(from, from + size_of(function)), across, down, threads});
    return 0;
}
extern "C" int launch_now(void *function, unsigned across, unsigned down, unsigned z, unsigned threads, unsigned b,
                          unsigned c, unsigned d, void *s, void **given, void **e) {
    launch_late(function, across, down, z, threads, b, c, d, s, given, e);
    return finish(nullptr);
}
extern "C" int nothing(void *, void *, unsigned) { return 0; }
"""


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels as functions of the host."""
    return built(SOURCE, {name: name.capitalize() for name in STRUCTS})


def built(kernels: Path, structs: Mapping[str, str]) -> ctypes.CDLL:
    """Kernels whose threads do not work together as functions of the host; `structs`: of each, its struct."""
    assert COMPILER is not None
    folder = kept_folder("kernels")
    shim = Path(__file__).parent / "gpu" / "host.h"
    source = f'#define RIGFLOW_ON_HOST "{shim}"\n#include "{kernels}"\n'
    source += "".join(_LAUNCH.format(name=name, struct=struct) for name, struct in structs.items())
    sizes = "".join(f"if (f == (void *)launch_{name}) return sizeof({struct}); " for name, struct in structs.items())
    source += f"static size_t size_of(void *f) {{ {sizes}return 0; }}{_DRIVER}"
    (folder / "kernels.cpp").write_text(source)
    out = folder / "kernels.so"
    subprocess.run([COMPILER, "-O2", "-shared", "-fPIC", "-o", str(out), str(folder / "kernels.cpp")], check=True)
    return ctypes.CDLL(str(out))


def on_gpu(gpu: Any, pictures: np.ndarray[Any, Any]) -> GpuRows:
    """Copies of pictures `[N, ...]` on a GPU, as a stage before would leave them there."""
    return GpuRows([GpuRow(gpu, copied(gpu, each), each.shape, each.dtype) for each in pictures])


class Surface:
    """A frame of the host that says it is one of the GPU's decoder."""

    format = VideoFormat("cuda", 16, 16)

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame
        self.sw_format = frame.format

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)


class _Kernels:
    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, int, int], stream: Any, given: Any) -> None:
        array = np.array(given)
        getattr(library(), f"launch_{name}")(ctypes.c_void_p(array.ctypes.data), *grid, block[0])


class _Done:
    """A stream on which everything is over, or an event that has come."""

    handle = 0

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...

    def wait_for_event(self, event: Any) -> None: ...


class _Driver:
    class Error(Exception):
        """Never raised."""

    @staticmethod
    def memset_d8_async(pointer: int, value: int, nbytes: int, stream: Any) -> None:
        ctypes.memset(pointer, value, nbytes)

    @staticmethod
    def memcpy_dtod_async(to: int, pointer: int, nbytes: int, stream: Any) -> None:
        ctypes.memmove(to, pointer, nbytes)


class _Late:
    """A stream or an event: waiting for it runs what was launched."""

    handle = 0

    def __init__(self, run: Callable[[], None]) -> None:
        self.synchronize = run

    def record(self, stream: Any = None) -> None: ...

    def wait_for_event(self, event: Any) -> None: ...


class _Calls:
    """What `burst.c` calls of CUDA's driver, and graphs: a run that is recorded runs at each launch of its graph."""

    def __init__(self, late: bool) -> None:
        self.recording: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.spoilt = False  # whether a call that cannot be recorded came between
        self.launched = self._begun = 0
        names = {"launch": "launch_late" if late else "launch_now", "record": "nothing", "wait": "nothing"}
        self.addresses = {name: _address(symbol) for name, symbol in {**names, "finish": "finish"}.items()}

    def function(self, name: str) -> int:
        return _address(f"launch_{name}")

    def new_event(self) -> int:
        return 1

    def end_event(self, event: int) -> None: ...

    def begin_capture(self, stream: int) -> None:
        assert self.recording is None
        self.recording = []

    def end_capture(self, stream: int) -> int:
        assert self.recording is not None
        made, self.recording = self.recording, None
        if self.spoilt:
            raise CallFailed("CUDA error 901")
        self._begun += 1
        self.graphs[self._begun] = made
        return self._begun

    def launch_graph(self, graph: int, stream: int) -> None:
        self.launched += 1
        for run in self.graphs[graph]:
            run()

    def end_graph(self, graph: int) -> None:
        del self.graphs[graph]


def _address(symbol: str) -> int:
    return ctypes.cast(getattr(library(), symbol), ctypes.c_void_p).value or 0


class HostGpu:
    """What `engines.cuda` wants of a `CudaGpu`."""

    number = 0
    name = "host"
    dlpack_device = (1, 0)  # kDLCPU
    driver: Any = _Driver
    facts = Gpu("A GPU of the host", 0, (0, 0))

    def __init__(self) -> None:
        self.kernels = _Kernels()
        self.calls = _Calls(late=False)
        self.capturing, self.works_on_media = threading.Lock(), False
        self.counters = Counters()
        self.memory = Pool(self._allocate, self.counters)
        self.pinned = Pool(self._allocate, self.counters)

    def _allocate(self, nbytes: int) -> tuple[int, Any]:
        block = np.full(nbytes, 0xA5, np.uint8)  # what was not written shows
        return block.ctypes.data, block

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        yield

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def close(self) -> None: ...

    def stream(self) -> Any:
        return _Done()

    new_stream = event = stream

    def works(self) -> bool:
        return True

    def begin_work(self) -> None:
        self.works_on_media = True

    def synchronize(self) -> None: ...

    def upload(self, pointer: int, host: np.ndarray[Any, Any], stream: Any) -> None:
        self.counters.to_gpu_bytes += host.nbytes
        ctypes.memmove(pointer, host.ctypes.data, host.nbytes)

    def download(self, host: np.ndarray[Any, Any], pointer: int, stream: Any) -> None:
        self.counters.from_gpu_bytes += host.nbytes
        ctypes.memmove(host.ctypes.data, pointer, host.nbytes)


class LateGpu(HostGpu):
    """One whose kernels run no earlier than they must; `launched` are the names of all."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []
        self._waiting: list[Callable[[], None]] = []
        self._kernels = _Kernels()
        self.kernels = self  # type: ignore[assignment]
        self.calls = _Calls(late=True)

    def launch(self, name: str, *given: Any) -> None:
        self.launched.append(name)
        self._waiting.append(lambda: self._kernels.launch(name, *given))

    def stream(self) -> Any:
        return _Late(self._run)

    new_stream = event = stream

    def upload(self, pointer: int, host: np.ndarray[Any, Any], stream: Any) -> None:
        self._waiting.append(lambda: HostGpu.upload(self, pointer, host, stream))

    def download(self, host: np.ndarray[Any, Any], pointer: int, stream: Any) -> None:
        self._run()
        super().download(host, pointer, stream)

    def _run(self) -> None:
        while self._waiting:
            self._waiting.pop(0)()

"""Compiles the kernels to a fat binary, or at first use into a cache, and launches each with one struct.

`python -m engines.cuda.kernels` compiles them ahead of time, beside their source, for every architecture that the
toolkit supports, and as PTX for later ones. Otherwise the first worker compiles them for its own GPU, by nvcc or else
by NVRTC, and keeps them in the cache folder.
"""

import ctypes
import glob
import hashlib
import os
import shutil
import site
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from engines.files import atomic_write
from schemas.errors import RigflowError

SOURCE = Path(__file__).with_name("kernels.cu")
_ARCHITECTURES = (60, 61, 70, 75, 80, 86, 89, 90, 100, 120)
ADDRESS, INT, FLOAT = np.uint64, np.int32, np.float32


def struct_of(*groups: tuple[Any, str]) -> np.dtype[Any]:
    """Return a C struct: `(type, "name name[length]")` in order, padded as a C compiler does."""
    fields: list[Any] = []
    for kind, names in groups:
        for name in names.split():
            bare, _, length = name.partition("[")
            fields.append((bare, kind, int(length.rstrip("]"))) if length else (bare, kind))
    return np.dtype(fields, align=True)


_TAPS = "luma_x_first luma_x luma_y_first luma_y chroma_x_first chroma_x chroma_y_first chroma_y"
MOST_FRAMES = 32  # of one launch: their addresses are in its struct, and kernels take 4 kB
SCALE = struct_of(
    (ADDRESS, f"frames[{4 * MOST_FRAMES}] {_TAPS}"),
    (INT, "luma_x_taps luma_y_taps chroma_x_taps chroma_y_taps luma_pitch chroma_pitch chroma_step"),
    (INT, "deep low_bits across left top width height stride_x stride_y gray each stretch colours[6]"),
)
PLANE = struct_of((ADDRESS, f"frames[{2 * MOST_FRAMES}]"), (INT, "pitch step deep drop width height stride_x stride_y"))
FILL = struct_of((ADDRESS, f"frames[{MOST_FRAMES}] bytes"), (INT, "value blocks"))
RESAMPLE = struct_of(
    (ADDRESS, f"frames[{2 * MOST_FRAMES}] x_first x y_first y"),
    (INT, "x_taps y_taps x_bits y_bits pitch channels left top width height stride_x stride_y"),
)
NV12 = struct_of((ADDRESS, "luma cb cr out"), (INT, "height width chroma_height chroma_width rows columns pitch"))
GATHER = struct_of((ADDRESS, "rows out"), (INT, "row_bytes count"))
COPY = struct_of((ADDRESS, "rectangles"), (INT, "pixel_bytes mirrored"))
RECTANGLE = struct_of((ADDRESS, "source out"), (INT, "source_pitch out_pitch height width read_height read_width"))
DIFFER = struct_of((ADDRESS, "pairs out"))
PAIR = struct_of((ADDRESS, "one other"), (INT, "pitch height width unused"))  # of `differ`
YUV420 = struct_of((ADDRESS, "pictures first weights"), (INT, "taps height width matrix[9]"))
DRAW = struct_of((ADDRESS, "pictures changes"))
DRAWN = struct_of((ADDRESS, "source out"), (INT, "height width first count"))  # a picture of `draw`
CHANGE = struct_of((ADDRESS, "mask tables"), (INT, "top left bottom right pitch down across value"))
MOST_OUTPUTS = 4  # of one selection
CANDIDATES = struct_of(
    (ADDRESS, "in[4] out count"),
    (INT, "outputs rows places columns[4] column_step[4] place_step[4] half[4] offset[4] record_bytes"),
    (INT, "scores first last factor factor_column softmax softmax_first softmax_last"),
    (FLOAT, "least"),
)
CLASSES = struct_of(
    (ADDRESS, "in out"), (INT, "rows pixels channels channel_step pixel_step half"), (FLOAT, "threshold")
)
BYTES = struct_of(
    (ADDRESS, "in out"), (INT, "rows values row_step step columns first[4] half whole"), (FLOAT, "black span")
)
STRUCTS = {
    "scale": SCALE,
    "resample": RESAMPLE,
    "plane": PLANE,
    "fill": FILL,
    "nv12": NV12,
    "gather": GATHER,
    "copy": COPY,
    "differ": DIFFER,
    "yuv420": YUV420,
    "candidates": CANDIDATES,
    "classes": CLASSES,
    "bytes": BYTES,
    "draw": DRAW,
}


class CompilerMissing(RigflowError):
    """The kernels are not compiled for this GPU, and this machine cannot compile them."""


class Kernels:
    """The kernels of one GPU, loaded into its current context."""

    def __init__(self, image: bytes, driver: Any, names: Iterable[str] = STRUCTS) -> None:
        self._module = driver.module_from_buffer(image)
        self._functions = {name: self._module.get_function(name) for name in names}

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, int, int], stream: Any, given: Any) -> None:
        """Queue one kernel on a stream; `given` is its struct."""
        self._functions[name](given, grid=grid, block=block, stream=stream)


def image_for(capability: tuple[int, int], cache: Path, source: Path = SOURCE) -> bytes:
    """Return the kernels of a file for a GPU of that compute capability: precompiled, cached, or compiled now.

    Raises CompilerMissing.
    """
    precompiled = _precompiled(source)
    if precompiled.exists():
        return precompiled.read_bytes()
    kept = cache / "kernels" / f"{_digest(source)}-sm{capability[0]}{capability[1]}"
    if not kept.exists():
        image = _by_nvcc(source, [capability[0] * 10 + capability[1]]) or _by_nvrtc(source, capability)
        if image is None:
            raise CompilerMissing(
                f"the kernels are not compiled for compute capability {capability[0]}.{capability[1]}",
                "install the CUDA toolkit or nvidia-cuda-nvrtc; for Pascal GPUs a 12.x one",
            )
        atomic_write(kept, image)
    return kept.read_bytes()


def precompile() -> Path | None:
    """Compile for every architecture that the toolkit supports, beside the source; None without a toolkit."""
    nvcc = _nvcc()
    if nvcc is None:
        return None
    listed = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    image = _by_nvcc(SOURCE, [number for number in _ARCHITECTURES if f"compute_{number}" in listed.split()])
    if image is None:
        return None
    _precompiled(SOURCE).write_bytes(image)
    return _precompiled(SOURCE)


def _precompiled(source: Path) -> Path:
    return source.with_name(f"{source.stem}-{_digest(source)}.fatbin")


def _text(source: Path) -> str:
    """A source with the headers beside it that it includes, so that no compiler looks for files."""
    beside = source.with_name("matrix.cuh")
    return source.read_text().replace(f'#include "{beside.name}"\n', beside.read_text() if beside.exists() else "")


def _digest(source: Path) -> str:
    return hashlib.sha256(_text(source).encode()).hexdigest()[:12]


def _nvcc() -> str | None:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", *_wheels("*/bin/nvcc/../..")]
    return next((found for home in homes if home and (found := shutil.which(f"{home}/bin/nvcc"))), shutil.which("nvcc"))


def _wheels(pattern: str) -> list[str]:
    folders = {*site.getsitepackages(), str(Path(np.__file__).parents[1])}
    return sorted(found for folder in folders for found in glob.glob(f"{folder}/nvidia/{pattern}"))


def _by_nvcc(path: Path, numbers: list[int]) -> bytes | None:
    """Return a fat binary for those architectures, with PTX of the oldest of them; None if nvcc fails."""
    nvcc = _nvcc()
    if nvcc is None or not numbers:
        return None
    words = [word for n in numbers for word in ("-gencode", f"arch=compute_{n},code=sm_{n}")]
    words += ["-gencode", f"arch=compute_{min(numbers)},code=compute_{min(numbers)}"]
    with tempfile.TemporaryDirectory() as folder:
        out, joined = Path(folder) / "kernels.fatbin", Path(folder) / path.name
        joined.write_text(_text(path))
        done = subprocess.run([nvcc, "-O3", "-fatbin", *words, "-o", str(out), str(joined)], capture_output=True)
        return out.read_bytes() if done.returncode == 0 else None


def _by_nvrtc(path: Path, capability: tuple[int, int]) -> bytes | None:
    """Return PTX by the NVRTC library; None if there is none, or it is too new for the GPU."""
    for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", *_wheels("*/lib/libnvrtc.so.1[0-9]")):
        try:
            nvrtc = ctypes.CDLL(name)
        except OSError:
            continue
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        option = f"--gpu-architecture=compute_{capability[0]}{capability[1]}".encode()
        source = ctypes.c_char_p(_text(path).encode())
        if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, path.name.encode(), 0, None, None) != 0:
            continue
        try:
            if nvrtc.nvrtcCompileProgram(program, 1, (ctypes.c_char_p * 1)(option)) != 0:
                continue
            nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
            image = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetPTX(program, image)
            return image.raw
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return None


if __name__ == "__main__":
    print(precompile() or "no CUDA toolkit: a GPU's first worker will compile the kernels")

"""Compiles and loads `burst.c`, the loop that decodes a part in one call, and checks that it reads frames right.

The loop calls the FFmpeg libraries that PyAV has loaded, and reads fields of their structs. Where these are is known
for some versions of FFmpeg, and is compared with PyAV's own view before the first use.
"""

import ctypes
import glob
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

from engines.media.bursts import IrregularBurst
from engines.native import NoCompiler, library_of

log = logging.getLogger("rigflow")

SOURCE = Path(__file__).with_name("burst.c")
_FACTS = "interlaced format sw_format width height color_range colorspace line0 line1 line2"
ROW = np.dtype([(name, np.int64) for name in f"pts corrupt plane0 plane1 plane2 {_FACTS}".split()])
_FUNCTIONS = {
    "send": ("avcodec", "avcodec_send_packet"),
    "receive": ("avcodec", "avcodec_receive_frame"),
    "unref": ("avutil", "av_frame_unref"),
    "set_int": ("avutil", "av_opt_set_int"),
    "new_packet": ("avcodec", "av_new_packet"),
    "unref_packet": ("avcodec", "av_packet_unref"),
}
_FRAME = {"pts": 136, "flags": 276, "color_range": 280, "colorspace": 292, "errors": 320, "frames": 328}
_FRAME |= {"planes": 0, "linesize": 64, "width": 104, "height": 108, "format": 116}
_PACKET = {"packet_pts": 8, "packet_data": 24, "packet_flags": 40, "packet_duration": 64}
_LAYOUTS = {  # major versions of PyAV and of its libavutil -> offsets of fields, of 64-bit machines
    (18, 60): {**_FRAME, **_PACKET, "ref_data": 8, "sw_format": 64},
    (19, 61): {**_FRAME, **_PACKET, "ref_data": 8, "sw_format": 64},
}
_DRIVER = ("launch", "record", "wait", "finish")  # `engines.cuda.driver_calls`
_PLACES = "at offset next seen_count rank last some skipping done over half count"
DONE, MORE, FIRST, UNKNOWN, IRREGULAR, FAILED = range(6)  # what a call returns
_SLOWER = "the GPU's frames are read one by one, which costs the host more"
_POINTER = 24  # in a PyAV object: the address of FFmpeg's, behind the object's head and its methods
_OFFSETS = "pts flags errors format width height color_range colorspace planes linesize frames ref_data sw_format"


class Unusable(Exception):
    """The loop cannot be used here; the text says why."""


class Times(ctypes.Structure):
    """Ascending times, in `values`."""

    _fields_ = (("values", ctypes.c_void_p), ("count", ctypes.c_int64))


class Launch(ctypes.Structure):
    """A kernel; see `engines.cuda.recipes.Launch`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ["function", "given", "sources", "offsets"]),
        ("each", ctypes.c_int64),
        *((name, ctypes.c_uint32) for name in ["across", "down"]),
        ("block", ctypes.c_uint32 * 3),
        ("unused", ctypes.c_uint32),
    )


class Output(ctypes.Structure):
    """The rows of one picture."""

    _fields_ = (("addresses", ctypes.c_void_p), ("count", ctypes.c_int64))


class Burst(ctypes.Structure):
    """The struct of `burst.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*_FUNCTIONS, *_DRIVER, "context", "packet", "stream")),
        ("events", ctypes.c_void_p * 3),
        ("slots", ctypes.c_void_p),
        ("together", ctypes.c_int64),
        ("table", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("due", Times),
        ("wanted", ctypes.c_void_p),
        *((name, Times) for name in ["hidden", "ranks", "entries", "owned"]),
        ("seen", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ["packet_count", "since", "skips", "by_rank", "checked"]),
        ("launches", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ["launch_count", "known"]),
        ("facts", ctypes.c_int64 * len(_FACTS.split())),
        *((name, ctypes.c_int64) for name in _PLACES.split()),
        ("busy", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("pending", "made", "first", "error", *_OFFSETS.split(), *_PACKET)),
    )


class BurstLibrary:
    """The compiled loop, checked.

    Raises Unusable and NoCompiler; OSError and AttributeError: it cannot be kept or loaded.
    """

    def __init__(self, cache: Path) -> None:
        if platform.system() != "Linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise Unusable("this system is not a 64-bit Linux")
        libraries = {name: _library(name) for name in ("avutil", "avcodec")}
        version = int(av.__version__.partition(".")[0]), libraries["avutil"].avutil_version() >> 16
        if version not in _LAYOUTS:
            raise Unusable(f"the layout of frames is not known for PyAV {version[0]} with libavutil {version[1]}")
        self._given = {name: _address(libraries[library], symbol) for name, (library, symbol) in _FUNCTIONS.items()}
        self._given |= _LAYOUTS[version]
        self._avutil, self._avcodec = libraries["avutil"], libraries["avcodec"]
        path = str(library_of(SOURCE, cache))
        waits, stays = ctypes.CDLL(path), ctypes.PyDLL(path)  # without and with the interpreter's lock
        self.decode: Any = waits.decode_part
        self.decode.restype = ctypes.c_int64
        self.decode.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self.release: Any = waits.released
        self.release.restype = ctypes.c_int64
        self.release.argtypes = (ctypes.c_void_p,)
        self.describe: Any = stays.describe
        self.describe.argtypes = (ctypes.c_void_p,) * 3
        stays.burst_bytes.restype = ctypes.c_int64
        if stays.burst_bytes() != ctypes.sizeof(Burst):
            raise Unusable("its struct is laid out otherwise by this C compiler")
        self._names: dict[int, str] = {-1: "none"}
        self._avutil.av_get_pix_fmt_name.restype = ctypes.c_char_p
        self.fault = ""
        self.checked = False
        _check_software(self)

    def new(self, context: av.CodecContext, driver: Mapping[str, int]) -> Burst:
        """Return the loop's struct for an open decoder; `driver`: addresses of calls of CUDA."""
        address = pointer_of(context)
        self._avcodec.avcodec_get_class.restype = ctypes.c_void_p
        if ctypes.c_void_p.from_address(address).value != self._avcodec.avcodec_get_class():
            raise Unusable("PyAV's decoders are laid out otherwise")
        return Burst(**self._given, **driver, context=address)

    def format_name(self, number: int) -> str:
        """Return the name of an AVPixelFormat."""
        if number not in self._names:
            self._names[number] = (self._avutil.av_get_pix_fmt_name(number) or b"none").decode()
        return self._names[number]

    def check_first(self, burst: Burst, frame: av.VideoFrame) -> None:
        """Check the first frame that a decoder gives in this process. Raises IrregularBurst, and has a `fault` then."""
        try:
            self.check(burst, frame)
        except Unusable as error:
            self.fault = str(error)
            log.warning("%s: %s", _SLOWER, error)
            raise IrregularBurst(None) from error
        self.checked = True

    def check_made(self, burst: Burst, frame: av.VideoFrame) -> None:
        """Compare a frame that PyAV made, with its format. Raises Unusable."""
        self.check(burst, frame)
        if self.format_name(int(self._row(burst, frame)["format"])) != frame.format.name:
            raise Unusable("FFmpeg's frames are laid out otherwise")

    def check(self, burst: Burst, frame: av.VideoFrame) -> None:
        """Compare how the loop reads a frame with how PyAV does. Raises Unusable.

        All but its format, which PyAV keeps beside a frame and does not know of one that a decoder filled for the loop.
        """
        given = self._row(burst, frame)
        pointers, lines = ([given[f"{what}{n}"] for n in range(len(frame.planes))] for what in ("plane", "line"))
        planes = frame.planes
        software = frame.sw_format.name if frame.sw_format else "none"
        ours = [given["pts"], given["width"], given["height"], given["color_range"], given["colorspace"]]
        ours += [bool(given["corrupt"]), bool(given["interlaced"]), self.format_name(int(given["sw_format"]))]
        ours += [*pointers, *lines]
        theirs: list[Any] = [frame.pts, frame.width, frame.height, int(frame.color_range), int(frame.colorspace)]
        theirs += [frame.is_corrupt, frame.interlaced_frame, software]
        theirs += [*(plane.buffer_ptr for plane in planes), *(plane.line_size for plane in planes)]
        if ours != theirs:
            raise Unusable("FFmpeg's frames are laid out otherwise")

    def _row(self, burst: Burst, frame: av.VideoFrame) -> Any:
        """A frame as the loop reads it."""
        row = np.zeros(1, ROW)
        self.describe(ctypes.addressof(burst), pointer_of(frame), row.ctypes.data)
        return row[0]


def load_bursts(cache: Path) -> BurstLibrary | None:
    """Return the loop; None, with a line in the log, where it cannot be used: frames are then decoded one by one."""
    try:
        return BurstLibrary(cache)
    except (Unusable, NoCompiler, OSError, AttributeError) as error:
        log.warning("%s: %s", _SLOWER, error)
        return None


def pointer_of(thing: "av.VideoFrame | Packet[Any] | av.CodecContext") -> int:
    """Return the address of the FFmpeg object in one of PyAV."""
    return ctypes.c_void_p.from_address(id(thing) + _POINTER).value or 0


def _library(name: str) -> ctypes.CDLL:
    """Return a library of FFmpeg that this process has loaded already, for PyAV."""
    folder = Path(av.__file__).parents[1] / "av.libs"
    found = glob.glob(f"{folder}/lib{name}-*.so*")
    if len(found) != 1:
        raise Unusable("PyAV has no FFmpeg libraries of its own, as its wheels do")
    return ctypes.CDLL(found[0], mode=os.RTLD_NOLOAD | os.RTLD_NOW)


def _address(library: ctypes.CDLL, symbol: str) -> int | None:
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value


def _check_software(library: BurstLibrary) -> None:
    """Compare with frames of the host that have unusual values. Raises Unusable."""
    context = av.CodecContext.create("h264", "r")
    burst = library.new(context, {})
    for number, name in enumerate(("yuv420p", "nv12", "yuv444p")):
        frame = av.VideoFrame(64 + 2 * number, 48 + 2 * number, name)
        frame.pts, frame.color_range, frame.colorspace = (1 << 40) + number, 2 - number % 2, 9 - number
        library.check_made(burst, frame)
    packet: Packet[Any] = Packet(5)
    packet.pts, packet.duration, packet.is_keyframe = 1 << 41, 1 << 42, True
    address = pointer_of(packet)
    ours = [ctypes.c_int64.from_address(address + getattr(burst, name)).value for name in _PACKET]
    ours[2] &= 0xFFFFFFFF
    if ours != [packet.pts, packet.buffer_ptr, 1, packet.duration]:
        raise Unusable("PyAV's packets are laid out otherwise")

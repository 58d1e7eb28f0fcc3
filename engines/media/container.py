"""Opens files and containers for reading. No media and no name can make FFmpeg or rigflow open another file.

Only this module calls `av.open` to read. FFmpeg gets bytes or an open file, never a name or a URL. The demuxers that
open further files (hls, concat, dash, sdp, image2, lavfi ...) are not allowed. References of mov to other files stay
off, which is the default.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from engines.mapped import BufferReader
from schemas.errors import MediaError
from schemas.wire import Buffer

# FFmpeg's demuxers that are allowed for media from outside. Playlists are left out because they name other files; tty
# and similar ones because they turn any text into a picture; those of png because images are no containers here.
_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,live_flv,asf,nut,ogg,gif,mxf,dv,vc1,rm,"
    "yuv4mpegpipe,mjpeg,jpeg_pipe,webp_pipe,mp3,wav,w64,flac,aac,ac3,amr,caf,aiff,aa,au"
)
FORMATS = frozenset([*_DEMUXERS.split(","), "mp4"])  # the containers that a message may name; FFmpeg reads mp4 by mov
# from release 19 on PyAV accepts metadata that is not UTF-8 by default
_METADATA: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def open_container(
    source: int | Buffer,
    format_name: str | None = None,
    options: dict[str, str] | None = None,
    decoder_options: dict[str, str] | None = None,
) -> InputContainer:
    """Open a container in memory or an open file. `format_name` is one of `FORMATS`; None: detect it by the content.

    `decoder_options` go to the decoders with which FFmpeg probes the streams, not to decoders that are opened later.

    The caller keeps the file descriptor and may close it at once. Raises MediaError for any other format, and FFmpeg's
    errors.
    """
    if format_name is not None and format_name not in FORMATS:
        raise MediaError(f"a container of format {format_name!r} is not supported", "send mp4, matroska or nut")
    limits = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"}
    file: str | io.IOBase
    if isinstance(source, int):
        # FFmpeg reads a descriptor itself; a Python object would take the interpreter's lock for each 32 kB
        file = "fd:"
        os.lseek(source, 0, os.SEEK_SET)
        limits |= {"protocol_whitelist": "fd", "fd": str(source)}
    else:
        file = io.BytesIO(source) if isinstance(source, bytes) else BufferReader(source)
    opened: InputContainer = av.open(
        file,
        "r",
        format=format_name,
        options=decoder_options or {},
        container_options={**(options or {}), **limits},
        **_METADATA,
    )
    return opened


@contextmanager
def open_file(path: str | Path) -> Iterator[int]:
    """Open the regular file at `path` and yield its file descriptor.

    Raises OSError. Raises MediaError if the path is no regular file: a read from a FIFO could block for ever.
    """
    file, _ = open_regular(path)
    try:
        yield file
    finally:
        os.close(file)


def read_head(path: str | Path, most: int) -> bytes:
    """Return at most the first `most` bytes of the regular file at `path`; raises as `open_file`.

    For thousands of images, a context manager or a file object would double the cost.
    """
    file, _ = open_regular(path)
    try:
        return os.read(file, most)
    finally:
        os.close(file)


def open_regular(path: str | Path, flags: int = 0) -> tuple[int, int]:
    """Return a file descriptor, which the caller closes, and the size of the file in bytes; raises as `open_file`.

    `flags` are further flags of `os.open`.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(path)
        if not stat.S_ISREG(found.st_mode):
            raise MediaError(f"{path} is no regular file", "copy its content to a file")
    except BaseException:
        os.close(file)
        raise
    return file, found.st_size

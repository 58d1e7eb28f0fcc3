"""What a message or a file says, it opens nothing but itself."""

import ast
import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from av.format import ContainerFormat

from engines.media.container import FORMATS, open_container
from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.source import open_media
from engines.media.split import Splitter
from pipelines.registry import builtin_pipeline
from schemas.errors import MediaError, UsageError
from schemas.jobs import JobRef, Key
from schemas.segments import Fragment
from tests.clips import Clip, generated
from tests.kinds import kind_of
from tests.plans import decode_plan
from tests.unit.outputs_parts import VIDEO, format_of

_IN_OPEN = 0x20
PACKAGES = ("schemas", "placement", "engines", "pipelines", "workers", "gateway", "cli")


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A film that FFmpeg could read, at a path with no character that a list would have to quote; it stays unopened."""
    path = tmp_path / "secret.ts"
    path.write_bytes(generated(Clip(container="ts", sound="aac")).read_bytes())
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, bytes(path), _IN_OPEN) >= 0
    yield path
    try:
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server that nobody connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def lures(target: str) -> list[bytes]:
    """Bytes that make one or another of FFmpeg's demuxers open `target`."""
    return [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        f"ffconcat version 1.0\nfile '{target}'\n".encode(),
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{target}\n"
        "m=audio 39998 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n".encode(),
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>".encode(),
        f"movie={target}".encode(),
        target.encode(),
    ]


def _demuxers() -> list[str]:
    found = []
    for name in sorted(av.formats_available):
        for each in {name, *name.split(",")}:
            try:
                if ContainerFormat(each, "r").is_input:
                    found.append(each)
            except ValueError:
                pass  # it only writes
    return found


def test_no_demuxer_opens_anything_for_a_message(secret: Path, server: int) -> None:
    demuxers = _demuxers()
    assert {"hls", "concat", "sdp", "lavfi", "image2", *FORMATS} <= set(demuxers)
    for target in (str(secret), f"file:{secret}", f"http://127.0.0.1:{server}/x.ts", f"tcp://127.0.0.1:{server}"):
        for container, data in product(demuxers, lures(target)):
            refused = nullcontext() if container in FORMATS else pytest.raises(MediaError, match="is not supported")
            with refused, suppress(av.error.FFmpegError), open_container(data, container) as opened:
                list(opened.demux())


def test_no_content_opens_anything_else(secret: Path, server: int, tmp_path: Path) -> None:
    for number, target in enumerate((f"file:{secret}", f"http://127.0.0.1:{server}/x.ts")):
        for which, data in enumerate(lures(target)):
            path = tmp_path / f"{number}-{which}.m3u8"
            path.write_bytes(data)
            for source in (path, data):
                with pytest.raises(MediaError, match="no video, sound or picture"), open_media(source):
                    pass


@pytest.mark.parametrize("name", ["wrapped_avframe", "apng", "h264_cuvid", "h264_qsv", "aac", "nonsense", ""])
def test_segments_name_no_unsafe_decoder(name: str) -> None:
    """`wrapped_avframe` takes the bytes of a packet for pointers; `apng` unpacks 1.5 MB of extradata to 1.5 GB."""
    spec = builtin_pipeline("fingerprint")
    key = Key(job=JobRef(id="job", pipeline="test", revision="0"), segment=0, final=True)
    with Splitter(generated(Clip(frames=5)), spec.grid, 4) as splitter:
        (segment_data,) = splitter.segments()
        codec = segment_data.codec.model_copy(update={"decoder": name})
        segment = segment_data.segment(key).model_copy(update={"codec": codec})
    with pytest.raises(MediaError, match="no decoder `"):
        list(decode_video(segment, segment_data.buffers, decode_plan(spec), pack_frame))


@pytest.mark.parametrize("container", ["hls", "concat", "image2", "nonsense", ""])
def test_sound_names_no_other_container(container: str, secret: Path, tmp_path: Path) -> None:
    data = lures(str(secret))[0]
    key = Key(job=JobRef(id="job", pipeline="test", revision="0"), segment=0, final=True)
    output = format_of("video").assemble(tmp_path / "film", VIDEO)
    with pytest.raises(MediaError, match="is not supported"):
        output.add_tracks(Fragment(key=key, media=VIDEO, container=container), {"head": np.frombuffer(data, np.uint8)})
    output.abort()


def test_a_name_is_never_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    monkeypatch.chdir(tmp_path)
    film = generated(Clip(frames=5)).read_bytes()
    for name in ("concat:a|b.mp4", "data:,x.mp4", "-i.mp4", "%03d.mp4"):
        Path(name).write_bytes(film)
        with open_media(Path(name)) as opened:
            assert opened.streams.video
    with pytest.raises(UsageError, match="no such file"), open_media(Path(f"http://127.0.0.1:{server}/film.mp4")):
        pass


@pytest.mark.parametrize("read", [kind_of, lambda path: open_media(path).__enter__()])
def test_what_is_no_regular_file_is_refused_at_once(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    for path in (tmp_path / "fifo.mp4", Path("/dev/zero")):
        with pytest.raises(MediaError, match=f"{path} is no regular file"):
            read(path)


def test_one_module_opens_containers_to_read() -> None:
    readers = {
        str(path)
        for package in PACKAGES
        for path in Path(package).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("av.open", "av.container.open")
        and "'w'" not in map(ast.unparse, call.args[1:2])
    }
    assert readers == {"engines/media/container.py"}

"""Decoding in bursts gives what PyAV gives frame by frame, of whole and of damaged media."""

import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat

from engines.cuda import burst_library, nvdec
from engines.cuda.burst import BurstDecoder
from engines.cuda.burst_library import BurstLibrary, load_bursts
from engines.cuda.memory import Counters
from engines.cuda.nvdec import GpuDecoders
from engines.cuda.pictures import surface
from engines.cuda.transforms import CudaPictures
from engines.media.bursts import IrregularBurst
from engines.part import no_tick
from schemas.errors import RigflowError
from schemas.pipeline import PipelineSpec
from tests.bursts import HostBursts, as_frame, library
from tests.clips import Clip, generated, real_clip
from tests.damage import SMALL, changed
from tests.host_gpu import COMPILER, HostGpu, LateGpu
from tests.plans import pictures
from tests.unit.media_passes import decoded, pipeline, raw, segments_of

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
PIPELINES = (pipeline(), pipeline(fps=5), pipeline(warm_up=6), pipeline(fps=5, frames=2, warm_up=3))


def outcome(data: bytes, spec: PipelineSpec, segment_s: float, decoders: Any) -> tuple[list[Any], list[Any]] | None:
    """Metas and arrays of all parts; None where the file is refused."""
    try:
        parts = decoded(*segments_of(data, spec, segment_s), spec, _raw, decoders)
    except RigflowError:
        return None
    return [part.meta for part in parts], [{n: a.tobytes() for n, a in part.arrays.items()} for part in parts]


def _raw(frame: Any, orientation: int) -> Any:
    return raw(as_frame(frame), orientation)


@pytest.mark.parametrize("seed", range(24))
def test_of_a_changed_file_comes_what_comes_frame_by_frame(seed: int) -> None:
    _, data = changed(random.Random(seed))
    for spec in PIPELINES:
        for segment_s in (3600, 0.9):
            assert outcome(data, spec, segment_s, HostBursts()) == outcome(data, spec, segment_s, None)


@pytest.mark.parametrize("spec", PIPELINES)
def test_a_whole_film_is_decoded_in_bursts_alone(spec: PipelineSpec) -> None:
    for clip in SMALL[:3]:
        decoders = HostBursts()
        assert outcome(generated(clip).read_bytes(), spec, 0.9, decoders) is not None
        assert decoders.leases == [True] * len(decoders.leases)
        assert len(decoders.leases) > 1


def test_a_loop_that_reads_frames_wrongly_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pts", "data", "linesize", "width", "height", "color_range", "colorspace"):
        wrong = {key: {**offsets, name: offsets[name] + 8} for key, offsets in burst_library._LAYOUTS.items()}
        with monkeypatch.context() as patch:
            patch.setattr(burst_library, "_LAYOUTS", wrong)
            assert load_bursts(tmp_path) is None
    monkeypatch.setattr(burst_library, "_LAYOUTS", {})
    assert load_bursts(tmp_path) is None
    assert "laid out otherwise" in caplog.messages[0]
    assert "is not known for PyAV" in caplog.messages[-1]


def test_without_a_compiler_the_log_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(burst_library.shutil, "which", lambda name: None)
    assert load_bursts(tmp_path) is None
    assert caplog.messages == [f"{burst_library._SLOWER}: there is no C compiler (cc, gcc or clang) here"]


def test_frames_of_the_decoder_that_differ_from_pyavs_are_read_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What only the decoder's own frames show: here its flags are looked for in another field."""
    wrong = BurstLibrary(tmp_path)
    wrong._given["errors"] = wrong._given["width"]
    data = generated(SMALL[0]).read_bytes()
    decoders = HostBursts(wrong)
    assert outcome(data, PIPELINES[0], 3600, decoders) == outcome(data, PIPELINES[0], 3600, None)
    assert decoders.leases == [True, False]
    assert wrong.fault
    assert len(caplog.messages) == 1


def test_frames_stay_as_they_are_until_they_are_dropped() -> None:
    with av.open(generated(Clip(frames=60))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        decoder = BurstDecoder(library(), container.streams.video[0].codec_context)
        frames = list(decoder.frames(packets, None, None, no_tick))
    with av.open(generated(Clip(frames=60))) as container:
        wanted = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(frames) == len(wanted) == 60
    for frame, array in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(as_frame(frame).to_ndarray(), array)
    assert not decoder._free
    del frame
    bursts = len({id(frame._held) for frame in frames})  # type: ignore[attr-defined]
    frames.clear()
    assert len(decoder._free) == bursts == 4


def test_only_frames_that_are_due_are_kept() -> None:
    with av.open(generated(Clip(frames=60))) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = sorted(packet.pts or 0 for packet in packets)
        due = times[5:40:7]
        ticks: list[int] = []
        decoder = BurstDecoder(library(), stream.codec_context)
        frames: list[Any] = list(decoder.frames(packets, due, [p.pts in due for p in packets], lambda: ticks.append(1)))
    assert [frame.pts for frame in frames if frame.kept] == due
    assert frames[-1].pts < times[-1]  # nothing more is decoded behind the last one
    assert len(frames) < 40  # B-frames are skipped
    assert ticks
    with pytest.raises(IrregularBurst):
        surface(next(frame for frame in frames if not frame.kept))


def test_a_gpus_decoders_count_what_was_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film with a damaged frame: its burst is irregular, the decoder that reads it frame by frame fails, too."""
    gpu = HostGpu()
    monkeypatch.setattr(nvdec, "open_decoder", lambda number, like: _again(like))
    data = bytearray(generated(SMALL[0]).read_bytes())
    for bursts, counted in ((library(), (1, 1, 1)), (None, (1, 1, 0))):
        gpu.counters = Counters()
        decoders = GpuDecoders(gpu, 2, "any", bursts)  # type: ignore[arg-type]
        whole = outcome(bytes(data), PIPELINES[0], 3600, decoders)
        assert whole == outcome(bytes(data), PIPELINES[0], 3600, None)
        hurt = bytearray(data)
        with av.open(io.BytesIO(data)) as film:
            packet = [packet for packet in film.demux(video=0) if packet.size][7]
        hurt[packet.pos : packet.pos + packet.size] = bytes(packet.size)
        damaged = outcome(bytes(hurt), PIPELINES[0], 3600, decoders)
        assert damaged == outcome(bytes(hurt), PIPELINES[0], 3600, None) != whole
        counters = gpu.counters
        assert (counters.on_gpu_segments, counters.on_host_segments, counters.irregular_segments) == counted


def _again(like: VideoCodecContext) -> VideoCodecContext:
    decoder = VideoCodecContext.create(like.codec.name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata, decoder.width, decoder.height = like.extradata, like.width, like.height
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder


@pytest.mark.parametrize("each_ends_a_part", [7, 1000])
def test_the_decoder_gets_its_memory_again_only_after_the_kernels(each_ends_a_part: int) -> None:
    """Kernels run when their stream or event is waited for; a decoder of the host soon writes over what it got back."""
    asked = pictures(size=(32, 32), layout="gray")  # reads the luma alone, which is alike in all formats
    at_once, late = (CudaPictures(asked, gpu) for gpu in (HostGpu(), LateGpu()))  # type: ignore[arg-type]
    made: list[list[Any]] = [[], []]
    for convert, rows in zip((at_once, late), made, strict=True):
        with av.open(real_clip("bikes")) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            decoder = BurstDecoder(library(), container.streams.video[0].codec_context)
            frames: Any = decoder.frames(packets, None, None, no_tick)
            for number, frame in enumerate(frames, 1):
                frame.format, frame.sw_format = VideoFormat("cuda", 16, 16), VideoFormat("nv12", 16, 16)
                rows.append(convert.convert(frame)["pixels"])
                if convert is at_once or number % each_ends_a_part == 0:
                    convert.synchronize()
            del frame
        convert.synchronize()
        assert len(decoder._free) < 10  # what 48 MB or 32 frames hold, and no more
    assert len(made[0]) > 200
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

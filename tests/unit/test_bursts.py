"""Decoding in bursts gives what PyAV gives frame by frame, of whole and of damaged media."""

import ctypes
import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext

from engines import native
from engines.cuda import burst, burst_library, nvdec
from engines.cuda.burst_library import BurstLibrary, load_bursts
from engines.cuda.memory import Counters
from engines.cuda.nvdec import GpuDecoders
from schemas.errors import RigflowError
from schemas.pipeline import PipelineSpec
from tests.bursts import HostBurstDecoder, HostBursts, RawPictures, library
from tests.clips import Clip, generated, real_clip
from tests.damage import SMALL, changed
from tests.host_gpu import COMPILER, HostGpu, LateGpu
from tests.unit import media_passes
from tests.unit.media_passes import decoded, pipeline, raw, segments_of

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
PIPELINES = (pipeline(), pipeline(fps=5), pipeline(warm_up=6), pipeline(fps=5, frames=2, warm_up=3))


def outcome(data: bytes, spec: PipelineSpec, segment_s: float, decoders: Any) -> tuple[list[Any], list[Any]] | None:
    """Metas and arrays of all parts; None where the file is refused."""
    try:
        parts = decoded(*segments_of(data, spec, segment_s), spec, _raw, decoders)
    except RigflowError:
        return None
    return [part.meta for part in parts], [
        {n: np.asarray(a).tobytes() for n, a in part.arrays.items()} for part in parts
    ]


def _raw(frame: Any, orientation: int) -> Any:
    return raw(frame, orientation)


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
    for name in ("pts", "format", "planes", "linesize", "width", "height", "color_range", "colorspace"):
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
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert load_bursts(tmp_path) is None
    assert caplog.messages == [f"{burst_library._SLOWER}: no C compiler here (cc, gcc or clang) compiles burst.c"]


def test_a_library_that_cannot_be_kept_or_loaded_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "name_of", lambda source: "burst-other.so")  # a name that no file has
    (tmp_path / "kernels").write_text("a file where the folder should be")
    assert load_bursts(tmp_path) is None
    for content in (b"no library", b""):
        cached = tmp_path / "damaged" / "kernels" / native.name_of(burst_library.SOURCE)
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(content)
        assert load_bursts(tmp_path / "damaged") is None
    assert [message.startswith(burst_library._SLOWER) for message in caplog.messages] == [True] * 3
    assert str(cached) in caplog.messages[-1]


def test_a_library_whose_struct_has_another_size_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Longer(burst_library.Burst):
        _fields_ = (("more", ctypes.c_int64),)

    monkeypatch.setattr(burst_library, "Burst", Longer)
    assert load_bursts(tmp_path) is None
    assert "its struct is laid out otherwise" in caplog.messages[0]


@pytest.mark.parametrize("packets", [0, 1, 20])
@pytest.mark.parametrize("spec", PIPELINES)
def test_a_decoder_that_ends_before_the_frames_of_a_part_came_is_no_endless_loop(
    packets: int, spec: PipelineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = HostBurstDecoder.begin
    row_bytes = 4 * 8
    monkeypatch.setattr(
        HostBurstDecoder,
        "begin",
        lambda self, table, *given: begin(self, bytes(table)[: packets * row_bytes], *given),
    )
    data, decoders = generated(Clip(frames=90)).read_bytes(), HostBursts()
    assert outcome(data, spec, 3600, decoders) == outcome(data, spec, 3600, None)
    assert decoders.leases == [True, False]


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


@pytest.mark.parametrize("fps", [None, 5])
@pytest.mark.parametrize("together", [1, 3, 4])
def test_rows_do_not_depend_on_how_many_frames_are_converted_together(
    together: int, fps: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels run as late as they may: the decoder soon writes over what it got back too early."""
    monkeypatch.setattr(burst, "together_of", lambda width, height: together)
    data, spec = generated(Clip(frames=90)).read_bytes(), pipeline(fps=fps)
    assert outcome(data, spec, 0.9, HostBursts(gpu=LateGpu())) == outcome(data, spec, 0.9, None)


def test_a_part_that_is_given_up_leaves_no_frame_in_the_decoder() -> None:
    decoders, data = HostBursts(gpu=LateGpu()), generated(Clip(frames=60)).read_bytes()
    media, [segment] = segments_of(data, PIPELINES[0], 3600)
    parts = media_passes.parts_of(media, segment, PIPELINES[0], _raw, decoders)
    assert next(parts).meta.key.part == 0
    parts.close()
    assert all(slot.width == 0 for slot in decoders.made[0]._slots)


def test_frames_that_no_tick_needs_are_not_decoded() -> None:
    data, spec = real_clip("bikes").read_bytes(), pipeline(fps=1)
    frames = [
        sum(len(part.array("pixels")) for part in decoded(*segments_of(data, spec, 3.0), spec, _raw, decoders))
        for decoders in (HostBursts(), None)
    ]
    assert frames[0] == frames[1] < 40


def test_a_gpus_decoders_count_what_was_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A film with a damaged frame: its burst is irregular, the decoder that reads it frame by frame fails, too."""
    gpu = HostGpu()
    monkeypatch.setattr(nvdec, "open_decoder", lambda number, like, in_place: _again(like))
    monkeypatch.setattr(nvdec, "BurstDecoder", HostBurstDecoder)
    data = bytearray(generated(SMALL[0]).read_bytes())
    for bursts, counted in ((library(), (1, 1, 1)), (None, (1, 1, 0))):
        gpu.counters = Counters()
        decoders = GpuDecoders(gpu, 2, "any", bursts).into(RawPictures(gpu))  # type: ignore[arg-type]
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


def test_a_kind_of_media_that_never_goes_well_in_bursts_is_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: Any = HostGpu()
    monkeypatch.setattr(nvdec, "open_decoder", lambda number, like, in_place: _again(like))
    monkeypatch.setattr(nvdec, "BurstDecoder", HostBurstDecoder)
    pictures: Any = RawPictures(gpu)
    monkeypatch.setattr(pictures, "recipe", lambda frame, orientation: None)
    data = generated(Clip(frames=90)).read_bytes()
    decoders = GpuDecoders(gpu, 2, "any", library()).into(pictures)
    assert outcome(data, PIPELINES[0], 0.4, decoders) == outcome(data, PIPELINES[0], 0.4, None)
    assert gpu.counters.irregular_segments == 2 < gpu.counters.on_gpu_segments


def _again(like: VideoCodecContext) -> VideoCodecContext:
    decoder = VideoCodecContext.create(like.codec.name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata, decoder.width, decoder.height = like.extradata, like.width, like.height
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder

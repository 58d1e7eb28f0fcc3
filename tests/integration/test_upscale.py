"""The pipeline upscale: films with their sound and times, pictures of all kinds, equal for every fleet."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

import av
import nats
import numpy as np
import pytest
from PIL import Image

from engines.models.catalogue import own_model
from pipelines.broker import Broker
from pipelines.job_records import JobRecord, all_manifests
from pipelines.result_index import result_index
from schemas.jobs import Priority
from schemas.parts import PartHeader
from schemas.pipeline import parse_pipeline
from schemas.settings import Settings
from schemas.subjects import HEADER_PART
from tests.cases import Array, Fleets, arrays, drawn, fleets, frames_of, put, stills, whole_and_killed
from tests.cli import Running, rigflow, rigflow_process
from tests.clips import Clip, make_clip
from tests.convolutions import convolutions, whole
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.integration.queues import eventually
from workers.run import run_jobs

STAGES = (("decode",), ("infer",), ("scale",), ("encode", "split", "collect"))
CARD = "[[inputs]]\nname = 'input'\ntile = [40, 32]\noverlap = 4\n[[heads]]\nkind = 'image'\n"
NET = convolutions(4)
ALPHA = np.add.outer(np.arange(46), np.arange(62)).astype(np.uint8)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def pipeline(folder: Path, factor: float = 0.0, encode: str = "image") -> Path:
    """rigflow's own, with a network of the tests in segments of half a second."""
    put(folder, NET, CARD)
    text = files("pipelines").joinpath("definitions", "upscale.toml").read_text()
    for old, new in (
        ('model = "realesr-animevideov3"', 'model = "m"'),
        ('media = ["video", "image"]', 'media = ["video", "image"]\nsegment_s = 0.5'),
        ("factor = 0.0", f"factor = {factor}"),
        ('format = "image"', f'format = "{encode}"'),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "up.toml"
    path.write_text(text)
    return path


def on_twos(folder: Path, frames: int = 16, size: tuple[int, int] = (46, 62)) -> Path:
    """A film in lossless RGB that shows each drawing for two frames."""
    path = folder / "twos.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=10, options={"qp": "0", "bf": "0"})
        video.height, video.width, video.pix_fmt = *size, "rgb24"
        video.codec_context.gop_size = 5
        for number in range(frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(drawn(size, number // 2), "rgb24")))
        out.mux(video.encode())
    return path


def lanczos(picture: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS))


async def test_every_frame_of_a_film_is_that_of_the_whole_frame(fleet: Fleets, tmp_path: Path) -> None:
    clip = on_twos(tmp_path)
    [outcome] = await fleet.answers(pipeline(tmp_path, encode="npz"), [clip], tmp_path / "out")
    expected = [whole(NET, frame) for frame in frames_of(clip)]
    np.testing.assert_array_equal(arrays(outcome)["image"], expected)


@pytest.mark.parametrize(("factor", "times"), [(0.0, 2.0), (1.0, 1.0), (1.5, 1.5), (4.0, 4.0)])
async def test_pictures_of_all_kinds(fleet: Fleets, tmp_path: Path, factor: float, times: float) -> None:
    """Sizes below, of and above a tile, odd ones, gray, 16 bits a sample, transparent."""
    paths = stills(tmp_path, [(46, 62), (21, 33), (40, 32), (1, 1)])
    given = [frames_of(path)[0] for path in paths]
    gray = drawn((51, 43), 1)[..., 0]
    deep = (drawn((46, 62), 2)[..., 0] * 257.0 + drawn((46, 62), 3)[..., 1]).clip(0, 65535).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(deep).save(tmp_path / "sixteen.png")
    Image.fromarray(np.dstack([given[0], ALPHA])).save(tmp_path / "transparent.png")
    paths += [tmp_path / f"{name}.png" for name in ("gray", "sixteen", "transparent")]
    given += [np.dstack([gray] * 3), np.dstack([np.rint(deep / 257).astype(np.uint8)] * 3), given[0]]
    [album] = await fleet.answers(pipeline(tmp_path, factor), paths, tmp_path / "out")
    for path, picture in zip(paths, given, strict=True):
        height, width = picture.shape[:2]
        bottom, right = max(0, 40 - height), max(0, 32 - width)
        around = np.pad(picture, [(0, bottom), (0, right), (0, 0)], "reflect")
        size = max(1, round(height * times)), max(1, round(width * times))
        answer = whole(NET, around)[: 2 * height, : 2 * width]
        if path.stem in ("gray", "sixteen"):
            answer = np.asarray(answer @ np.array([299, 587, 114]) + 500, int) // 1000
            answer = answer.astype(np.uint8)
        expected = lanczos(answer, size)
        made = np.asarray(Image.open(album.target / path.name))
        if path.stem == "transparent":
            opaque = Image.fromarray(ALPHA).resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(made[..., 3], np.asarray(opaque))
            made = made[..., :3]
        np.testing.assert_array_equal(made, expected, err_msg=path.name)


async def test_sound_times_and_size_of_a_film(fleet: Fleets, tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(container="mkv", sound="aac", vfr=True, frames=30, rotation=0))
    [outcome] = await fleet.answers(pipeline(tmp_path, 3.0), [clip], tmp_path / "out")
    assert outcome.done is not None
    made = outcome.target.parent / outcome.done.files[0]

    def read(path: Path) -> tuple[list[float], list[bytes], tuple[int, int]]:
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        with av.open(str(path)) as container:
            sound = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        return [float(frame.time or 0) for frame in frames], sound, (frames[0].height, frames[0].width)

    times, sound, (height, width) = read(clip)
    new_times, new_sound, size = read(made)
    assert [each - new_times[0] for each in new_times] == pytest.approx([each - times[0] for each in times], abs=1e-6)
    assert new_sound == sound
    assert size == (3 * height, 3 * width)


@pytest.mark.parametrize(
    ("codec", "bits", "backend"),
    [("hevc", 10, "onnxruntime"), ("h264", 8, "ncnn"), pytest.param("av1", 8, "onnxruntime", marks=pytest.mark.slow)],
)
def test_killed_workers_change_nothing(tmp_path: Path, codec: str, bits: int, backend: str) -> None:
    """Neither a fleet of two nor a kill makes other bytes of a film."""
    clip, path = on_twos(tmp_path, frames=60), pipeline(tmp_path)
    put(tmp_path, NET, f'backend = "{backend}"\n{CARD}')
    path.write_text(path.read_text() + f'[stage.options]\ncodec = "{codec}"\nbits = {bits}\n')
    whole_and_killed(path, [clip], tmp_path / "out", tmp_path / "cache")


@pytest.mark.slow  # tests/integration/test_jobs.py has the short form
def test_a_film_goes_on_after_all_was_killed_and_two_days(tmp_path: Path) -> None:
    """`run`, worker and broker die by kill -9; the same command does what was left, and what was in hand again."""
    clip, path, out = on_twos(tmp_path, frames=80), pipeline(tmp_path), tmp_path / "out"
    (tmp_path / "other").mkdir()
    spec, models = parse_pipeline(path.read_text(), path.name), {"m": own_model("m", tmp_path)}
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=3.0) as fleet:
        command = ("run", path, clip, "--out", out, "--nats", fleet.settings.nats)
        with Running(*command) as first:
            asyncio.run(eventually(partial(half_done, fleet.settings), 60))
            first.process.kill()
        fleet.workers[0].send_signal(signal.SIGKILL)
        fleet.workers[0].wait()
        fleet.server.kill()
        assert not any(out.glob("*.mp4"))
        fleet.server.restart()
        before = asyncio.run(stored_parts(fleet.settings, made_earlier_s=2 * 86400.0))
        fleet.kill(0)
        made = asyncio.run(made_by(fleet.settings, command))
        (out / "twos.upscale.mp4").rename(tmp_path / "resumed.mp4")
        other = on_twos(tmp_path / "other", frames=80)
        [plain] = asyncio.run(run_jobs(fleet.settings, spec, models, [other], tmp_path, Priority.BULK, Silent()))
    again = sorted(before & made)
    print(f"parts stored before the kill {len(before)}, made after it {len(made)}, of these again {len(again)}")
    assert len(before | made) == 16
    assert len(again) <= 1, "only the one in hand when all was killed"
    assert plain.done is not None
    assert (tmp_path / plain.done.files[0]).read_bytes() == (tmp_path / "resumed.mp4").read_bytes()


async def half_done(settings: Settings) -> bool:
    return len(await stored_parts(settings)) >= 5


async def stored_parts(settings: Settings, made_earlier_s: float = 0.0) -> set[tuple[int, int]]:
    """The parts among the results of the only job, which is then dated back."""
    async with Broker.connected(settings, name="test") as broker:
        manifests = await all_manifests(broker)
        if not manifests:
            return set()
        if made_earlier_s:
            record = await JobRecord.read(broker, manifests[0].job)
            assert record is not None
            await record.change(created_s=record.manifest.created_s - made_earlier_s)
        found = [
            PartHeader.parse(stored.headers)
            async for stored in result_index(broker, [broker.names.results(manifests[0].job)])
            if HEADER_PART in stored.headers
        ]
    return {(header.segment, header.part) for header in found}


async def made_by(settings: Settings, command: Sequence[object]) -> set[tuple[int, int]]:
    """The parts that are published while a command runs to its end."""
    client = await nats.connect(settings.nats)
    results = await client.subscribe("rigflow.results.>")
    done = await asyncio.to_thread(rigflow_process, *command)
    assert done.returncode == 0, done.stderr
    await client.flush()
    made = set()
    while results.pending_msgs:
        headers = (await results.next_msg()).headers or {}
        if HEADER_PART in headers:
            header = PartHeader.parse(headers)
            made.add((header.segment, header.part))
    await client.close()
    return made


def test_another_model_and_other_fields_by_options(tmp_path: Path) -> None:
    """A missing model is one line that says where it is; --model runs another one, and the result follows --set."""
    clip, home = on_twos(tmp_path, frames=4), {"HOME": str(tmp_path)}
    done = rigflow("run", "upscale", clip, "--out", tmp_path / "out", **home)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model realesr-animevideov3 is missing: download realesr-animevideov3.pth from" in done.stderr
    folder = tmp_path / ".local/share/rigflow/models"
    folder.mkdir(parents=True)
    put(folder, NET, CARD, "mine")
    options = ("--model", "mine", "--set", "scale.factor=3", "--workers", "1", "--out", tmp_path / "out")
    done = rigflow("run", "upscale", clip, *options, **home)
    assert done.returncode == 0, done.stderr
    with av.open(str(next((tmp_path / "out").glob("twos.upscale.*")))) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width) == (138, 186)
    done = rigflow(
        "run", "upscale", clip, "--model", "mine", "--set", "scale.faktor=2", "--out", tmp_path / "o", **home
    )
    assert "faktor" in done.stderr
    done = rigflow("run", "upscale", clip, "--set", "zoom.factor=2", "--out", tmp_path / "o", **home)
    assert "has no field zoom.factor" in done.stderr

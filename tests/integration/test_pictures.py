"""Pictures of all kinds through a fleet: stills come out as stills, animations as films, and a stream may be chosen."""

import asyncio
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline, load_pipeline
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.unit.test_animations import COLOURS, LASTS_MS, animation
from tests.unit.test_image_formats import expected, written
from tests.unit.test_media_streams import LARGE, SMALL, film

STILLS = {"bmp": "P", "tiff": "CMYK", "tga": "RGBA", "jpeg2000": "RGB", "gif": "Pt", "ppm": "I;16", "avif": "RGB"}


def test_stills_animations_and_refusals(tmp_path: Path) -> None:
    for name, mode in STILLS.items():
        (tmp_path / f"{name}.img").write_bytes(written(name, mode, (33, 21)))
    for name in ("gif", "png", "webp", "avif"):
        (tmp_path / f"film-{name}.img").write_bytes(animation(name, LASTS_MS))
    (tmp_path / "words.img").write_text("no picture at all\n" * 100)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        out = tmp_path / "out"
        done = fleet.run(builtin_pipeline("upscale2x"), sorted(tmp_path.glob("*.img")), out)
        by_name = {outcome.name: outcome for outcome in done}
        (error,) = [outcome.error for outcome in done if outcome.error is not None]
        assert "words.img is no video, sound or picture that rigflow reads" in str(error)
        assert by_name[f"{len(STILLS)} images"].ok
        for name in STILLS:
            with Image.open(out / "images.upscale2x" / f"{name}.png") as png:
                wanted = expected((tmp_path / f"{name}.img").read_bytes())
                assert png.size == (66, 42)
                shrunk = png.convert("RGBA" if wanted.shape[2] == 4 else "RGB").reduce(2)
            assert np.abs(np.asarray(shrunk).astype(int) - wanted)[..., :3].mean() < 6, name  # dithered ones ring
        for name in ("gif", "png", "webp", "avif"):
            times, colours = shown(out / f"film-{name}.upscale2x.mp4")
            np.testing.assert_allclose(times, np.cumsum([0, *LASTS_MS[:-1]]) / 1000, atol=2e-3)
            assert np.abs(np.array(colours) - COLOURS).max() < 8, name


def shown(path: Path) -> tuple[list[float], list[list[float]]]:
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        return [float(frame.time or 0) for frame in frames], [
            frame.to_ndarray(format="rgb24").mean(axis=(0, 1)).tolist() for frame in frames
        ]


def test_a_chosen_stream_is_for_its_own_jobs_alone(tmp_path: Path) -> None:
    path = film(tmp_path / "two.mp4", [SMALL, LARGE])
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats, "--out", tmp_path / "out")
        for options, size in (((), LARGE), (("--stream", "0"), SMALL), (("--stream", "1"), LARGE)):
            ran = rigflow("run", "upscale2x", path, *where, *options, "--overwrite")
            assert ran.returncode == 0, ran.stderr
            with av.open(tmp_path / "out" / "two.upscale2x.mp4") as made:
                assert (made.streams.video[0].width, made.streams.video[0].height) == (2 * size[0], 2 * size[1])
        refused = rigflow("run", "upscale2x", path, *where, "--stream", "5")
        assert "has no video stream 5: choose by --stream one of those that it has: 0, 1" in refused.stderr
        assert asyncio.run(newest(fleet.settings)).decode.stream is None


async def newest(settings: Settings) -> PipelineSpec:
    broker = await Broker.connect(settings, name="test")
    try:
        return await load_pipeline(broker, "upscale2x")
    finally:
        await broker.close()

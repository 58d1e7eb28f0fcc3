"""No result is lost to a name, whichever command writes it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli import rigflow
from tests.clips import Clip, generated, still
from tests.fleet import ONE_WORKER, Fleet


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """card1/clip.mp4 and card2/clip.mp4, which are unlike."""
    paths = [tmp_path / f"card{number}" / "clip.mp4" for number in (1, 2)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        shutil.copy(generated(Clip(frames=30, seed=number)), path)
    return paths


def descriptor(path: Path) -> bytes:
    with np.load(path) as arrays:
        return arrays["descriptor"].tobytes()


def test_inputs_that_are_called_alike_have_a_result_each(clips: list[Path], tmp_path: Path) -> None:
    other = shutil.copy(clips[1], tmp_path / "clip.mov")
    link = tmp_path / "link.mp4"
    link.symlink_to(clips[0])
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats, "--out", tmp_path / "out")
        ran = rigflow("run", "fingerprint", *clips, other, link, clips[0], *where)
        assert ran.returncode == 0, ran.stderr
        names = ["card1-clip.mp4", "card2-clip.mp4", "clip.mov", "link"]
        files = [tmp_path / "out" / f"{name}.fingerprint.npz" for name in names]
        assert sorted(path for path in (tmp_path / "out").iterdir()) == files
        assert all(str(path) in ran.stdout for path in files)
        assert descriptor(files[0]) != descriptor(files[1]) == descriptor(files[2])
        before = files[2].stat()
        assert rigflow("run", "fingerprint", other, *where).returncode == 0
        assert rigflow("run", "fingerprint", other, *where).returncode == 0
        assert files[2].stat() == before
        new = {path.name for path in (tmp_path / "out").iterdir()} - {path.name for path in files}
        assert new == {"clip.fingerprint.npz"}, "the second run made what was there"
        shutil.copy(clips[0], other)
        changed = rigflow("run", "fingerprint", other, *where)
        assert changed.stdout.split()[-1] == str(tmp_path / "out" / "clip.mov-2.fingerprint.npz")
        assert "other results were there, and are kept" in changed.stderr
        assert rigflow("run", "fingerprint", clips[0], *where, "--overwrite").returncode == 0
        assert descriptor(tmp_path / "out" / "clip.fingerprint.npz") == descriptor(files[0])


def test_results_of_jobs_that_are_called_alike_and_images_of_two_runs(clips: list[Path], tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(4)]
    for number, image in enumerate(images):
        image.write_bytes(still("png", seed=number))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        jobs = [rigflow("publish", "fingerprint", clip, *where).stdout.strip() for clip in clips]
        for job in jobs:
            assert rigflow("results", job, "--follow", "--out", tmp_path / "out", *where).returncode == 0
        ours = [tmp_path / "out" / f"{name}.fingerprint.npz" for name in ("clip", "clip.mp4")]
        assert descriptor(ours[0]) != descriptor(ours[1])
        for pair in (images[:2], images[2:]):
            ran = rigflow("run", "upscale2x", *pair, "--out", tmp_path / "pictures", *where)
            assert ran.returncode == 0, ran.stderr
        made = sorted(path for path in (tmp_path / "pictures").rglob("*.png"))
        assert [str(path.relative_to(tmp_path / "pictures")) for path in made] == [
            "images-2.upscale2x/2.png",
            "images-2.upscale2x/3.png",
            "images.upscale2x/0.png",
            "images.upscale2x/1.png",
        ]
        assert all(str(path) in ran.stdout for path in made[:2])


def test_a_fault_of_one_input_is_its_own_and_the_others_are_done(clips: list[Path], tmp_path: Path) -> None:
    long, strange = tmp_path / ("n" * 246 + ".mp4"), tmp_path / os.fsdecode(b"\xff.mp4")
    for path in (long, strange):
        shutil.copy(clips[0], path)
    os.mkfifo(tmp_path / "fifo.mp4")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats, "--out", tmp_path / "out")
        ran = rigflow("run", "fingerprint", long, strange, tmp_path / "fifo.mp4", *clips, *where)
        assert ran.returncode == 1
        assert len(list((tmp_path / "out").iterdir())) == 2
        for text in (
            "n.fingerprint: File name too long: rename the input",
            "\\xff.mp4: its name is not UTF-8",
            "fifo.mp4: not a file",
        ):
            assert text in ran.stderr

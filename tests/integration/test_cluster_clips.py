"""`rigflow run fingerprint`, then `rigflow cluster`: real clips, and copies of them encoded anew and cut in time."""

import json
import shutil
from pathlib import Path

from tests.cli import rigflow_process
from tests.clips import Clip, copy_of, make_clip, real_clip


def test_copies_are_found_among_real_clips(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(real_clip("carphone_pristine"), videos / "carphone.mp4")
    copy_of(videos / "carphone.mp4", videos / "half.mkv", scale=0.5)
    copy_of(videos / "carphone.mp4", videos / "from_1s.mp4", start_s=1.0, end_s=3.5)
    make_clip(videos, Clip(size=(144, 176))).rename(videos / "other.mp4")
    ran = rigflow_process("run", "fingerprint", *sorted(videos.iterdir()), "--out", tmp_path / "results")
    assert ran.returncode == 0, ran.stderr
    results = sorted((tmp_path / "results").iterdir())
    ended = rigflow_process("cluster", *results, "--media", videos, "--out", tmp_path)
    assert ended.stdout.splitlines()[0] == "2 clusters of 4 media, 2 near-duplicates"
    assert not ended.stderr
    first, second = (json.loads(line) for line in (tmp_path / "clusters.jsonl").read_text().splitlines())
    assert {each["name"]: (each["duplicate_of"], each["offset_s"]) for each in first["media"]} == {
        "carphone": (None, None),
        "half": ("carphone", 0.0),
        "from_1s": ("carphone", 1.0),
    }
    assert first["similarity"] > 0.98
    assert [each["name"] for each in second["media"]] == ["other"]
    assert (tmp_path / "clusters.html").read_text().count("data:image/jpeg") == 4
    assert (tmp_path / "clusters.png").stat().st_size > 50_000

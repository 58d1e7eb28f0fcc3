"""`rigflow near` over two result files."""

import json
from pathlib import Path

import numpy as np

from tests.cli import rigflow


def write(path: Path, start: int, windows: int) -> Path:
    """Descriptors of an endless film of random windows, one a second, from window `start` on."""
    film = np.random.default_rng(7).normal(size=(60, 63)).astype(np.float32)
    film /= np.linalg.norm(film, axis=1, keepdims=True)
    np.savez(path, descriptor=film[start : start + windows], times=np.arange(windows, dtype=np.float64))
    return path


def test_the_same_media_is_near_itself(tmp_path: Path) -> None:
    a = write(tmp_path / "a.npz", 0, 40)
    lines = rigflow("near", a, a).stdout.splitlines()
    assert lines == ["similarity  1.0000 over 40 windows", "offset      none, both begin with the same picture"]


def test_a_clip_is_found_in_its_film_and_the_film_around_its_clip(tmp_path: Path) -> None:
    film, clip = write(tmp_path / "film.npz", 0, 40), write(tmp_path / "clip.npz", 12, 10)
    output = "offset      {}12.000 s: clip.npz begins 12.000 s into film.npz"
    assert rigflow("near", film, clip).stdout.splitlines()[1] == output.format("+")
    assert rigflow("near", clip, film).stdout.splitlines()[1] == output.format("-")
    reported = json.loads(rigflow("near", film, clip, "--json").stdout)
    assert reported == {"similarity": reported["similarity"], "offset_s": 12.0, "windows": 10}
    assert reported["similarity"] > 0.999


def test_what_is_no_fingerprint_is_refused_in_a_line(tmp_path: Path) -> None:
    a = write(tmp_path / "a.npz", 0, 10)
    for other in (tmp_path / "none.npz", Path(__file__)):
        ended = rigflow("near", a, other)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert str(other) in ended.stderr

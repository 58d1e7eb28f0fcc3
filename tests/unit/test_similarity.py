"""`near`: how alike two files of descriptors are, and how they are shifted."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.clusters import find_clusters
from engines.part import Array
from engines.similarity import Descriptors, Match, compare, load_descriptors, load_media
from schemas.errors import ExitCode, UsageError
from tests.unit.builtin import run


def unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def random_media(seed: int, count: int) -> Array:
    """Descriptors that change slowly, as those of media do."""
    rng = np.random.default_rng(seed)
    return unit(np.cumsum(rng.normal(size=(count, 64)), axis=0)).astype(np.float32)


def described(vectors: Array, start: float = 0.0, step: float = 1.0, name: str = "a.npz") -> Descriptors:
    return Descriptors(vectors, start + step * np.arange(len(vectors)), name)


def best_by_hand(a: Array, b: Array, least: float) -> tuple[float, int, int]:
    """Similarity, shift and windows in common, shift by shift."""
    found = []
    for shift in range(1 - len(b), len(a)):
        common = [(i, i - shift) for i in range(len(a)) if 0 <= i - shift < len(b)]
        if len(common) >= max(1, least * min(len(a), len(b))):
            mean = sum(float(a[i].astype(float) @ b[j]) for i, j in common) / len(common)
            found.append((round(mean, 9), -abs(shift), shift, len(common)))
    mean, _, shift, common_count = max(found)
    return mean, shift, common_count


@settings(max_examples=60)
@given(n=st.integers(1, 25), m=st.integers(1, 25), least=st.floats(0.1, 1), seed=st.integers(0, 999))
def test_the_best_of_all_shifts(n: int, m: int, least: float, seed: int) -> None:
    a, b = random_media(seed, n), random_media(seed + 1000, m)
    match = compare(described(a), described(b), least)
    mean, shift, windows = best_by_hand(a, b, least)
    assert match.similarity == pytest.approx(mean, abs=1e-6)
    assert (match.offset_s, match.windows) == (shift, windows)


@pytest.mark.parametrize("shift", [0, 1, 7, 30])
@pytest.mark.parametrize("step", [0.4, 1.0, 1 / 3])
def test_finds_a_part_of_a_media_in_the_whole(shift: int, step: float) -> None:
    whole = random_media(1, 60)
    part = described(whole[shift : shift + 20], step=step)
    found = compare(described(whole, step=step), part)
    assert found.similarity == pytest.approx(1, abs=1e-6)
    assert found.offset_s == pytest.approx(shift * step)
    assert found.windows == 20
    assert compare(part, described(whole, step=step)).offset_s == pytest.approx(-shift * step)


def test_a_late_start_counts_into_the_offset() -> None:
    vectors = random_media(2, 12)
    assert compare(described(vectors, start=5), described(vectors, start=2)).offset_s == pytest.approx(3)


def test_still_media_are_not_shifted() -> None:
    still = random_media(3, 1).repeat(30, axis=0)
    match = compare(described(still), described(still[:10]))
    assert match.similarity == pytest.approx(1, abs=1e-6)
    assert (match.offset_s, match.windows) == (0.0, 10)


def test_windows_that_damage_took_are_left_out() -> None:
    vectors = random_media(4, 40)
    there = np.delete(np.arange(40), [3, 4, 5, 20])
    damaged = Descriptors(vectors[there], there.astype(float), "b.npz")
    match = compare(described(vectors), damaged)
    assert match.similarity == pytest.approx(1, abs=1e-6)
    assert (match.offset_s, match.windows) == (0.0, 36)


def test_times_that_round_to_milliseconds_stay_on_the_grid() -> None:
    vectors = random_media(5, 3000)
    times = np.floor(np.arange(3000) / 30 * 1000) / 1000
    match = compare(described(vectors, step=1 / 30), Descriptors(vectors[600:], times[600:] - times[600], "b.npz"))
    assert match.similarity == pytest.approx(1, abs=1e-6)
    assert match.offset_s == pytest.approx(20, abs=0.01)


def test_an_image_is_found_in_a_video() -> None:
    vectors = random_media(6, 30)
    match = compare(described(vectors), Descriptors(vectors[17:18], np.zeros(1), "image.npz"))
    assert match.similarity == pytest.approx(1, abs=1e-6)
    assert (match.offset_s, match.windows) == (17.0, 1)


def test_different_media_are_not_alike() -> None:
    rng = np.random.default_rng(7)
    a, b = (unit(rng.normal(size=(50, 64))).astype(np.float32) for _ in range(2))
    assert compare(described(a), described(b)).similarity < 0.2


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (described(random_media(0, 9), step=0.5, name="b.npz"), "not on one time grid: a window each 1 s and 0.5 s"),
        (described(random_media(0, 9)[:, :8], name="b.npz"), "descriptors of different lengths, 64 and 8"),
        (Descriptors(random_media(0, 3), np.zeros(3), "b.npz"), "not on one time grid"),
        (Descriptors(random_media(0, 5), np.array([0, 1, 2, 3.5, 4.5]), "b.npz"), "b.npz is not on a time grid"),
    ],
)
def test_says_why_two_files_cannot_be_compared(b: Descriptors, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        compare(described(random_media(0, 9)), b)
    assert caught.value.hint


def test_loads_what_npz_results_hold(tmp_path: Path) -> None:
    vectors, times = random_media(8, 4), np.arange(4.0)
    np.savez(tmp_path / "video.npz", descriptor=vectors, times=times)
    loaded = load_descriptors(tmp_path / "video.npz")
    np.testing.assert_array_equal(loaded.vectors, vectors)
    np.testing.assert_array_equal(loaded.times, times)
    np.savez(tmp_path / "image.npz", descriptor=vectors[:1], names=np.array(["a.jpg"]))
    assert load_descriptors(tmp_path / "image.npz").times.tolist() == [0.0]


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_pickle(path: Path) -> None:
    np.savez(path, descriptor=np.array([{}], dtype=object), times=np.zeros(1))


def write_truncated(path: Path) -> None:
    np.savez(path, descriptor=random_media(0, 50), times=np.arange(50.0))
    path.write_bytes(path.read_bytes()[:5000])


def write_damaged(path: Path) -> None:
    np.savez(path, descriptor=random_media(0, 50), times=np.arange(50.0))
    body = bytearray(path.read_bytes())
    body[3000] ^= 255
    path.write_bytes(body)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a folder: name its results"),
        (lambda path: path.write_bytes(b""), "is not an npz file"),
        (lambda path: path.write_text("hello, world"), "is not an npz file"),
        (write_npy, "is not an npz file"),
        (write_pickle, "is not an npz file"),
        (write_truncated, "is not an npz file"),
        (write_damaged, "is not an npz file"),
        (lambda path: np.savez(path, score=np.zeros(3), times=np.zeros(3)), "has no descriptors"),
        (lambda path: np.savez(path, descriptor=np.zeros((3, 4))), "has no descriptors"),
        (lambda path: np.savez(path, descriptor=np.zeros(3), times=np.zeros(3)), "has no descriptors"),
        (lambda path: np.savez(path, descriptor=np.zeros((2, 4)), times=np.zeros(3)), "has no descriptors"),
        (lambda path: np.savez(path, descriptor=np.zeros((0, 4)), times=np.zeros(0)), "has no windows"),
        (lambda path: np.savez(path, descriptor=np.zeros((2, 4)), names=np.array(["a", "b"])), "describes 2 images"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, write: object, words: str) -> None:
    path = tmp_path / "file.npz"
    assert callable(write)
    write(path)
    with pytest.raises(UsageError, match=words) as caught:
        load_descriptors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


def film(*shown: Array) -> Array:
    """Descriptors of one window a second of gray pictures `[32, 32]`, by the model."""
    return np.asarray(run("fingerprint")(np.stack(shown)[:, None].astype(np.uint8)))


def saved(path: Path, vectors: Array) -> Descriptors:
    np.savez(path, descriptor=vectors, times=np.arange(len(vectors), dtype=float))
    return load_descriptors(path)


def plain(level: int, count: int, noise: float = 0.0) -> list[Array]:
    rng = np.random.default_rng(level)
    return [(level + noise * rng.normal(size=(32, 32))).clip(0, 255).round() for _ in range(count)]


def scenes(seed: int, count: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    shown = [rng.uniform(0, 255, (4, 4)).repeat(8, axis=0).repeat(8, axis=1) for _ in range(count)]
    return [scene + rng.normal(size=scene.shape).clip(-1, 1) for scene in shown]


def test_blank_windows_are_not_alike(tmp_path: Path) -> None:
    """A black film and a white one, with what an encoder leaves of noise: 1.0000 before."""
    black, white = (saved(tmp_path / f"{level}.npz", film(*plain(level, 20, 0.3))) for level in (10, 240))
    assert compare(black, white) == Match(0.0, 0.0, 0)
    scene = saved(tmp_path / "scene.npz", film(*scenes(1, 20)))
    assert compare(black, scene).similarity < 0.3


@pytest.mark.parametrize("tail", [5, 20, 60, 2000])
def test_films_that_end_in_black_are_compared_by_their_pictures(tmp_path: Path, tail: int) -> None:
    one, other = ([*scenes(seed, 20), *plain(0, tail)] for seed in (1, 2))
    first, second = saved(tmp_path / "1.npz", film(*one)), saved(tmp_path / "2.npz", film(*other))
    assert compare(first, second).similarity < 0.5
    later = saved(tmp_path / "3.npz", film(*plain(255, 7), *one))
    match = compare(first, later)
    assert match.similarity > 0.99
    assert (match.offset_s, match.windows) == (-7.0, 20)


def test_a_picture_against_black_counts_as_unlike(tmp_path: Path) -> None:
    whole = scenes(1, 20)
    half = [*whole[:10], *plain(0, 10)]
    match = compare(saved(tmp_path / "1.npz", film(*whole)), saved(tmp_path / "2.npz", film(*half)))
    assert match.similarity < 0.7 or match.windows <= 10
    assert match.windows in (10, 20)


def test_blank_images_are_in_no_cluster(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    vectors = film(*plain(0, 1), *plain(255, 1), *scenes(1, 1), *scenes(1, 1))
    np.savez(path, descriptor=vectors, names=np.array(["black", "white", "scene", "copy"]))
    clusters = find_clusters(list(load_media(path).values()))
    assert sorted(sorted(member.media for member in cluster.members) for cluster in clusters) == [[0], [1], [2, 3]]

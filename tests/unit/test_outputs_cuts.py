"""Cuts of films by the whole of `scenes`: its model's scores, and what becomes of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from engines.outputs.cuts import FLASH_S, alike, looks
from engines.part import Array, Part
from tests.clips import real_clip
from tests.unit.builtin import CLIPS, frames, run
from tests.unit.outputs_parts import VIDEO, assemble, format_of, make_part
from tests.unit.test_model_shotchange import BIKES_CUTS

RATE = 25
SHOTS = [number + 1 for number in BIKES_CUTS]  # the first frame of each shot after the first


def film(clip: str = "bikes") -> Array:
    return frames(real_clip(clip), (90, 160), "rgb24")[0]


def parts_of(pictures: Array, rate: float, windows: int) -> list[Part]:
    """The parts of a film, of so many windows each, as decode and infer would make them."""
    media = VIDEO.model_copy(update={"time_base": (1, round(rate * 4)), "frame_rate": (round(rate), 1)})
    parts = []
    for number, start in enumerate(range(0, len(pictures), windows)):
        rows = np.minimum(np.arange(start, min(start + windows, len(pictures)) + 1), len(pictures) - 1)
        pixels, count = pictures[rows], len(rows) - 1
        index = np.arange(count)[:, None] + np.arange(2, dtype=np.int32)
        arrays = {"pixels": pixels, "index": index, "score": run("shotchange")(pixels[index])}
        parts.append(make_part(media, arrays, range(4 * start, 4 * (start + count), 4), number))
    return parts


def cuts_of(pictures: Array, folder: Path, rate: float = RATE, windows: int = 40) -> list[float]:
    """When shots begin, in frames, without the first."""
    parts = parts_of(pictures, rate, windows)
    files = assemble(format_of("shots", sheet=True), folder / "film", parts[0].meta.media, parts)
    starts = [json.loads(line)["start"] for line in files[0].read_text().splitlines()]
    return [round(start * rate) for start in starts[1:]]


def flashed(pictures: Array, at: int, length: int, level: int) -> Array:
    changed = pictures.copy()
    changed[at : at + length] = level
    return changed


@pytest.mark.parametrize("windows", [1, 7, 40, 1000])
def test_cuts_of_a_real_clip_do_not_depend_on_parts(tmp_path: Path, windows: int) -> None:
    assert cuts_of(film(), tmp_path, windows=windows) == SHOTS


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("level", [255, 0])
@pytest.mark.parametrize("length", [1, 2, 4, 6])
def test_a_flash_is_no_cut(tmp_path: Path, clip: str, level: int, length: int) -> None:
    pictures = film(clip)
    plain = cuts_of(pictures, tmp_path)
    for at in (15, 60, 105):
        pictures = flashed(pictures, at, length, level)
    assert cuts_of(pictures, tmp_path) == plain


def test_a_flash_that_fades_is_no_cut(tmp_path: Path) -> None:
    pictures = film("carphone_pristine")
    for step, share in enumerate(np.linspace(1, 0, 10)):
        pictures = pictures.copy()
        pictures[50 + step] = pictures[50 + step] * (1 - share) + 255 * share
    assert cuts_of(pictures, tmp_path) == []


def test_black_for_a_second_is_a_shot(tmp_path: Path) -> None:
    assert cuts_of(flashed(film("carphone_pristine"), 40, 25, 0), tmp_path) == [40, 65]


def test_a_cut_beside_a_flash_is_seen(tmp_path: Path) -> None:
    for distance in (-6, -3, 3, 6):
        assert cuts_of(flashed(film(), SHOTS[1] + distance, 1, 255), tmp_path) == SHOTS


@pytest.mark.parametrize("rate", [1, 2, 5])
def test_films_of_few_frames_a_second_have_no_false_cuts(tmp_path: Path, rate: int) -> None:
    step = RATE // rate
    for phase in range(0, step, 5):
        pictures = film()[phase::step]
        true = {-(-(cut - phase) // step) for cut in SHOTS}
        found = cuts_of(pictures, tmp_path, rate)
        assert len(set(found) - true) <= (rate == 2), (rate, phase)  # one of fifteen where all is in motion
        assert len(found) >= 2
    for clip in ("bigbuckbunny", "carphone_pristine"):
        assert cuts_of(film(clip)[::step], tmp_path, rate) == []


def test_a_show_of_slides_keeps_its_cuts(tmp_path: Path) -> None:
    slides = [film(clip)[at] for at in (10, 100) for clip in CLIPS]
    assert cuts_of(np.repeat(slides, 4, axis=0), tmp_path, rate=1) == [4, 8, 12, 16, 20]


def test_a_look_is_alike_in_any_light_and_unlike_after_a_cut() -> None:
    pictures = film().astype(float)
    brighter = (pictures * 0.6 + 80).clip(0, 255).astype(np.uint8)
    seen = looks(film(), np.arange(len(pictures)))
    light = looks(brighter, np.arange(len(pictures)))
    assert all(alike(seen[at], light[at]) for at in range(0, 250, 10))
    lag = int(FLASH_S * RATE)
    for cut in SHOTS:
        assert not any(alike(seen[cut - 1], each) for each in seen[cut : cut + lag])

"""shots: cuts at local peaks, at the right frame, the same however the parts are cut, and a sheet to look at."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.outputs.pictures import decode_jpeg, encode_jpeg
from engines.outputs.shot_sheet import ShotSheet
from engines.part import Array, Part
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from tests.unit.outputs_parts import VIDEO, assemble, format_of, make_part

WIDE = VIDEO.model_copy(update={"width": 640, "height": 360})
COLOURS = np.array([[200, 40, 40], [40, 180, 60], [50, 70, 210], [230, 200, 40]], dtype=np.uint8)


def parts_of(scores: list[float], shots: list[int], media: MediaInfo = WIDE, cut: int = 5) -> list[Part]:
    """A video whose frame `n` has the colour of shot `shots[n]`, in parts of `cut` windows."""
    frames = np.empty((len(shots), 90, 160, 3), dtype=np.uint8)
    frames[:] = COLOURS[np.array(shots) % len(COLOURS)][:, None, None]
    parts = []
    for number, start in enumerate(range(0, len(shots), cut)):
        end = min(start + cut, len(shots))
        pixels = frames[start : end + 1]
        index = np.minimum(np.arange(end - start)[:, None] + [0, 1], len(pixels) - 1).astype(np.int32)
        arrays = {"score": np.array(scores[start:end], np.float32), "pixels": pixels, "index": index}
        parts.append(make_part(media, arrays, range(start, end), number))
    return parts


def run(target: Path, parts: list[Part], media: MediaInfo = WIDE, **options: Any) -> list[dict[str, float]]:
    files = assemble(format_of("shots", **options), target, media, parts)
    assert files[0] == target.with_name(f"{target.name}.jsonl")
    return [json.loads(line) for line in files[0].read_text().splitlines()]


def read_png(path: Path) -> Array:
    with av.open(path) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.parametrize("cut", [1, 4, 5, 7, 100])
def test_a_shot_starts_at_the_second_frame_of_its_window(tmp_path: Path, cut: int) -> None:
    shots = [0] * 20 + [1] * 25 + [2] * 15
    scores = [0.01] * 60
    scores[19], scores[44] = 0.9, 2 / 3
    assert run(tmp_path / "a", parts_of(scores, shots, cut=cut)) == [
        {"shot": 1, "start": 0.0, "end": 0.8, "score": 0.0},
        {"shot": 2, "start": 0.8, "end": 1.8, "score": 0.9},
        {"shot": 3, "start": 1.8, "end": 2.4, "score": 0.666667},
    ]
    sheet = read_png(tmp_path / "a.png")
    tiles = [sheet[24 + 48 + 45, 24 + column * 182 + 80].astype(int) for column in range(3)]
    for tile, colour in zip(tiles, COLOURS, strict=False):
        assert abs(tile - colour).max() < 8  # jpeg


def test_the_last_shot_lasts_until_the_end_of_the_media(tmp_path: Path) -> None:
    media = WIDE.model_copy(update={"last": 59, "end": 75})
    (row,) = run(tmp_path / "a", parts_of([0.0] * 60, [0] * 60, media), media, sheet=False)
    assert (row["start"], row["end"]) == (0.0, 3.0)


def test_only_the_peak_of_a_run_of_high_scores_is_a_cut(tmp_path: Path) -> None:
    scores = [0.0] * 75
    scores[28:33] = [0.4, 0.6, 0.8, 0.7, 0.5]
    scores[50] = 0.29
    rows = run(tmp_path / "a", parts_of(scores, [0] * 75))
    assert [(row["start"], row["score"]) for row in rows] == [(0.0, 0.0), (31 / 25, 0.8)]


def test_the_options_say_what_a_cut_is(tmp_path: Path) -> None:
    scores = [0.0] * 75
    scores[1] = scores[30] = scores[36] = scores[70] = 0.5
    parts = parts_of(scores, [0] * 75)

    def starts(**options: Any) -> list[float]:
        return [row["start"] for row in run(tmp_path / "a", parts, **options)]

    assert starts() == [0.0, 1.24, 2.84]
    assert starts(least_s=0.2) == [0.0, 1.24, 1.48, 2.84]
    assert starts(least_s=0.0) == [0.0, 0.08, 1.24, 1.48, 2.84]
    assert starts(threshold=0.6) == [0.0]


def test_without_a_sheet_no_picture_is_needed(tmp_path: Path) -> None:
    part = make_part(WIDE, {"score": np.zeros(3, np.float32)}, range(3))
    assert run(tmp_path / "a", [part], sheet=False) == [{"shot": 1, "start": 0.0, "end": 0.12, "score": 0.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_result_is_small(tmp_path: Path) -> None:
    (part,) = parts_of([0.0] * 50, [0] * 50, cut=50)
    encoded = format_of("shots").encode(part)
    assert encoded.arrays["at"].tolist() == [-1]
    assert sum(array.nbytes for array in encoded.arrays.values()) < 8000 < part.nbytes // 200


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((1, 2, 2, 3), np.uint8)}, "format shots needs `score`: add it to the model's outputs"),
        (
            {"score": np.zeros(1, np.float32)},
            "format shots needs `pixels`: add it to the model's outputs or to `keeps`",
        ),
        (
            {
                "score": Ragged.of([np.zeros(2)]),
                "pixels": np.zeros((1, 2, 2, 3), np.uint8),
                "index": np.zeros((1, 2), int),
            },
            r"rows of `score` differ in length: format shots takes one number a window",
        ),
        (
            {"score": np.zeros((1, 2)), "pixels": np.zeros((1, 2, 2, 3), np.uint8), "index": np.zeros((1, 2), int)},
            r"`score` has shape \[1, 2\] for 1 windows: format shots takes one number a window",
        ),
    ],
)
def test_parts_that_are_no_scores(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        format_of("shots").encode(make_part(WIDE, arrays, [0]))


def test_a_job_that_failed_from_the_start_has_a_blank_sheet(tmp_path: Path) -> None:
    assert run(tmp_path / "a", []) == []
    assert read_png(tmp_path / "a.png").std() > 0  # the head


@pytest.mark.parametrize(
    ("aspect", "width"), [((1, 1), 160), ((81, 256), 90), ((3, 4), 120), ((99, 1), 270), ((0, 1), 160)]
)
def test_pictures_have_the_shape_they_are_shown_in(aspect: tuple[int, int], width: int) -> None:
    sheet = ShotSheet(WIDE.model_copy(update={"sample_aspect": aspect}))
    white = np.full((90, 160, 3), 255, dtype=np.uint8)
    sheet.add(encode_jpeg(white), 0.0, 1.0)
    image = sheet.draw()
    assert (image[24 + 48 + 45] > 250).all(axis=-1).sum() == width


def test_a_film_has_a_sheet_of_bounded_size() -> None:
    sheet = ShotSheet(WIDE)
    jpeg = encode_jpeg(np.zeros((90, 160, 3), dtype=np.uint8))
    for shot in range(3000):
        sheet.add(jpeg, float(shot), shot + 1.0)
    image = sheet.draw()
    assert image.nbytes < 40_000_000
    assert sheet.notes == ["the sheet shows one in 8 of 3000 shots"]


def test_thumbnails_look_like_the_frame() -> None:
    ramp = np.linspace(0, 255, 160).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp, ramp[::-1], np.uint8(99)), axis=-1)[None].repeat(90, axis=0)
    assert abs(decode_jpeg(encode_jpeg(pixels)).astype(int) - pixels).mean() < 3


def test_large_pictures_make_no_large_sheet() -> None:
    sheet = ShotSheet(WIDE)
    jpeg = encode_jpeg(np.full((1200, 1600, 3), 255, dtype=np.uint8))
    for shot in range(40):
        sheet.add(jpeg, float(shot), shot + 1.0)
    image = sheet.draw()
    assert image.nbytes < 40_000_000
    white = (image > 250).all(axis=-1)
    assert (white[24 + 48 + 45].sum(), white[:, 24 + 45].sum()) == (8 * 360, 5 * 270)

"""annotated with the numbers of tracks: the pictures of every part size, drawn as Pillow draws them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.encoding import Assembler
from engines.outputs.draw import class_colour
from engines.part import Array
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import OutputError, PipelineError
from tests.unit.outputs_parts import VIDEO, assemble, format_of, make_part
from tests.unit.test_outputs_annotated import HEIGHT, LABELS, MEDIA, RNG, WIDTH, boxes_of, drawn_image, pillow


def walking(frames: int) -> dict[str, Any]:
    """A sure box that moves, from the third frame on a second one beside it, of another class, and an unsure one."""
    boxes = [[[8 + 4 * n, 40, 68 + 4 * n, 200], [200, 60, 300, 180], [90, 150, 180, 230]] for n in range(frames)]
    there = [[0, 2] if n < 2 else [0, 1, 2] for n in range(frames)]
    return {
        "boxes": Ragged.of([np.array(each, np.float32)[rows] for each, rows in zip(boxes, there, strict=True)]),
        "scores": Ragged.of([np.array([0.9, 0.8, 0.2], np.float32)[rows] for rows in there]),
        "classes": Ragged.of([np.array([0, 1, 0], np.int32)[rows] for rows in there]),
    }


@pytest.mark.parametrize(("down", "across", "odd"), [(2, 2, 0), (2, 2, 1), (1, 1, 0)])
def test_a_tracked_video_shows_what_pillow_draws_with_the_numbers(
    tmp_path: Path, down: int, across: int, odd: int
) -> None:
    """At the best quality, the pictures differ from a drawing on RGB by what coding costs; the times are the same."""
    height, width, count = HEIGHT + odd, WIDTH + odd, 5
    sizes = [(height, width), *[(-(-height // down), -(-width // across))] * 2]
    grey = {f"plane{n}": np.full((count, *size), 128 - 20 * (n == 0), np.uint8) for n, size in enumerate(sizes)}
    media, arrays = MEDIA.model_copy(update={"width": width, "height": height}), walking(count)
    parts = []
    for number, (start, stop) in enumerate(((0, 2), (2, 3), (3, 5))):
        held = {name: plane[start:stop] for name, plane in grey.items()}
        held |= {name: array.rows(start, stop) for name, array in arrays.items()}
        parts.append(make_part(media, held, range(start, stop), number))
    made = [
        assemble(format_of("annotated", LABELS, track=True, crf=1), tmp_path / name, media, each)[0]
        for name, each in (("apart", parts), ("joined", [make_part(media, grey | arrays, range(count))]))
    ]
    frames = []
    for path in made:
        with av.open(path) as container:
            frames.append(list(container.decode(video=0)))
    assert [frame.time for frame in frames[0]] == [number / 25 for number in range(count)]
    names = [[(0, "#1 person 0.90")]] * 2 + [[(0, "#1 person 0.90"), (None, "Größe 车 0.80")]]
    names += [[(0, "#1 person 0.90"), (1, "#2 Größe 车 0.80")]] * 2
    for number, found in enumerate(names):
        expected = np.full((height, width, 3), 107, np.uint8)  # of 108 in limited range
        for (track, text), box in zip(found, arrays["boxes"].row(number).astype(int).tolist()[:-1], strict=True):
            colour = (160, 160, 160) if track is None else class_colour(track)
            expected = pillow(expected, tuple(box), colour, text, down)
        for each in frames:
            shown = each[number].to_ndarray(format="rgb24").astype(int)[:height, :width]
            assert np.abs(shown - expected).mean() < 3, number
            assert np.abs(shown[190:210, 90:92] - expected[190:210, 90:92]).max() < 25, "the unsure box is not drawn"
            assert np.abs(shown - expected).max(axis=2)[50:190:30, 4:320].mean() < 6


@pytest.mark.parametrize(("codec", "bits"), [("hevc", 10), ("av1", 8)])
def test_a_tracked_video_of_another_codec(tmp_path: Path, codec: str, bits: int) -> None:
    grey = {f"plane{n}": np.full((3, HEIGHT >> (n > 0), WIDTH >> (n > 0)), 108, np.uint8) for n in range(3)}
    output = format_of("annotated", LABELS, track=True, codec=codec, bits=bits)
    (path,) = assemble(output, tmp_path / "a", MEDIA, [make_part(MEDIA, grey | walking(3), range(3))])
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert [frame.format.components[0].bits for frame in frames] == [bits] * 3
    for number, frame in enumerate(frames):
        border = (
            frame.to_ndarray(format="rgb24")[80:160, 8 + 4 * number : 10 + 4 * number].astype(int).mean(axis=(0, 1))
        )
        assert np.abs(border - class_colour(0)).max() < 60, number


def test_tracks_need_boxes_and_images_are_drawn_without_numbers() -> None:
    planes = {"pixels": Tensor("uint8", ("F", 32, 32, 3)), "mask": Tensor("uint8", ("W", 32, 32))}
    format_of("annotated").check(planes, ["video"])
    with pytest.raises(PipelineError, match="format annotated needs `boxes`"):
        format_of("annotated", track=True).check(planes, ["video"])
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    arrays = boxes_of([30, 40, 200, 180], classes=[1], scores=[0.5])
    np.testing.assert_array_equal(drawn_image(pixels, arrays, track=True), drawn_image(pixels, arrays))


def test_a_result_with_broken_pictures_ends_its_job_and_leaves_nothing(tmp_path: Path) -> None:
    arrays = {"pixels": np.zeros((3, 48, 64, 3), np.uint8), **walking(3)}
    output, part = format_of("annotated", track=True), make_part(VIDEO, arrays, range(3))
    encoded = output.encode(part)
    broken = {
        "data": encoded.arrays["data"][:5],
        "sizes": encoded.arrays["sizes"][:1],
        "boxes@found": np.zeros((2, 3)),
    }

    def finish(assembler: Assembler, arrays: Mapping[str, Array]) -> None:
        assembler.add(part.meta, arrays, encoded.facts)
        assembler.close()

    for name, array in broken.items():
        assembler = output.assemble(tmp_path / "a", VIDEO)
        with pytest.raises((OutputError, PipelineError, ValueError)):
            finish(assembler, {**encoded.arrays, name: array})
        assembler.abort()
        assert list(tmp_path.iterdir()) == [], name

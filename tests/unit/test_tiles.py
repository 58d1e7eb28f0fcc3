"""Tiles: bit-equal to the whole frame where the overlap is the network's radius, whatever the sizes and the batches."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.tiles import strips
from engines.models.reading import travelling_form
from engines.operators.infer import Infer
from engines.part import Part, no_tick
from engines.planned import FRAME_SIZE, INDEX, model_picture_name
from schemas.errors import ModelError, PipelineError, RigflowError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import InputCard, ModelCard, ModelSpec
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from tests.convolutions import convolutions, whole

Array = np.ndarray[Any, Any]
HEAD = ({"kind": "image"},)


@cache
def brought(graph: bytes, tile: tuple[int, int], overlap: int, **more: Any) -> tuple[ModelSpec, OnnxRuntimeSession]:
    card = InputCard.model_validate({"name": "input", "tile": tile, "overlap": overlap, **more})
    colours = {"colours": "gray"} if more.get("colours") == "gray" else {}
    heads = ({"kind": "image", **colours},)
    spec, body = travelling_form(graph, "m", ModelCard.model_validate({"name": "m", "inputs": (card,), "heads": heads}))
    return spec, OnnxRuntimeSession(body, spec)


class Counting:
    """A session that takes as many rows at once as the stage allows, and counts them."""

    def __init__(self, session: OnnxRuntimeSession) -> None:
        self._session, self.rows = session, 0
        self.spec, self.batch_bytes = session.spec, 2 << 20

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.rows += len(next(iter(inputs.values())))
        return self._session.run(inputs)

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


def part_of(frames: Sequence[Array], index: Sequence[int] | None = None) -> Part:
    rows = np.array(range(len(frames)) if index is None else index, np.int32)[:, None]
    sizes = np.array([frame.shape[:2] for frame in frames], np.int32)
    arrays = {model_picture_name("infer", "input"): np.stack(frames), INDEX: rows, FRAME_SIZE: sizes}
    key = Key(job=JobRef(id="job", pipeline="p", revision="r"), segment=0)
    return Part(PartMeta(key=key, media=MediaInfo(kind="video"), pts=tuple(range(len(rows)))), arrays)


def inferred(spec: ModelSpec, session: Any, parts: Sequence[Part], max_batch: int = 5) -> list[Part]:
    stage = OperatorStage(kind="infer", name="infer", model="m", max_batch=max_batch)
    outcomes = Infer(stage, spec).run(parts, session, no_tick)
    for outcome in outcomes:
        assert not isinstance(outcome, RigflowError), outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Part)]


def noise(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(length=st.integers(1, 3000), tile=st.integers(1, 400), overlap=st.integers(0, 64))
def test_cores_cover_a_side_once_with_context_around(length: int, tile: int, overlap: int) -> None:
    if tile <= 2 * overlap:
        return
    found = strips(length, tile, overlap)
    assert [each.first for each in found] == [0, *(each.last for each in found[:-1])]
    assert found[-1].last == length
    for each in found:
        assert each.first < each.last
        assert each.start >= 0
        assert each.start + tile <= max(length, tile)
        assert each.first - each.start >= (overlap if each.start else 0)
        assert each.start + tile - each.last >= (overlap if each.last < length else 0)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(1, 4),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    inner=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factor=st.sampled_from([1, 2, 4]),
    max_batch=st.integers(1, 7),
    gray=st.booleans(),
)
def test_tiles_are_bit_equal_to_the_whole_frame(
    count: int, extra: tuple[int, int], inner: tuple[int, int], factor: int, max_batch: int, gray: bool
) -> None:
    graph = convolutions(count, factor, 1 if gray else 3)
    tile = 2 * count + inner[0], 2 * count + inner[1]
    spec, session = brought(graph, tile, count, **({"colours": "gray"} if gray else {}))
    size = tile[0] + extra[0], tile[1] + extra[1]
    colours = () if gray else (3,)
    frames = [noise(number, *size, *colours) for number in range(3)]
    other = noise(9, tile[0] + 3, tile[1] + 1, *colours)
    parts = [part_of(frames), part_of([other])]
    of_three, of_one = inferred(spec, Counting(session), parts, max_batch)
    for frame, made in zip(frames, of_three.array("image"), strict=True):
        np.testing.assert_array_equal(made, whole(graph, frame))
    np.testing.assert_array_equal(of_one.array("image")[0], whole(graph, other))
    assert of_three.array("source_size").tolist() == [list(size)] * 3


@pytest.mark.parametrize("border", ["reflect", "edge"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 7), (11, 11)])
def test_a_frame_smaller_than_a_tile_is_padded_as_the_card_says(size: tuple[int, int], border: str) -> None:
    graph = convolutions(3)
    spec, session = brought(graph, (24, 20), 3, border=border)
    picture = noise(1, *size, 3)
    [made] = inferred(spec, session, [part_of([picture])])
    bottom, right = max(0, 24 - size[0]), max(0, 20 - size[1])
    around = np.pad(picture, [(0, bottom), (0, right), (0, 0)], border)
    np.testing.assert_array_equal(made.array("image")[0], whole(graph, around)[: 2 * size[0], : 2 * size[1]])


@pytest.mark.parametrize("size", [(61, 75), (64, 70), (40, 32), (33, 90)])
def test_blocks_of_a_network_that_unshuffles_lie_as_in_the_whole_frame_padded_to_even_sides(
    size: tuple[int, int],
) -> None:
    """As RealESRGAN_x2plus in its authors' code: odd sides are mirrored by a pixel, and the answer is cropped."""
    net, (height, width), picture = convolutions(3, 2, unshuffle=True), size, noise(4, *size, 3)
    even = np.pad(picture, [(0, height % 2), (0, width % 2), (0, 0)], "reflect")
    expected = whole(net, even)[: 2 * height, : 2 * width]
    for align, equal in ((2, True), (1, height % 2 == width % 2 == 0)):
        spec, session = brought(net, (32, 32), 6, align=align)
        [made] = inferred(spec, session, [part_of([picture])])
        assert np.array_equal(made.array("image")[0], expected) == equal, align


def test_with_less_overlap_pixels_near_seams_differ() -> None:
    graph, picture = convolutions(4), noise(2, 60, 60, 3)
    spec, session = brought(graph, (30, 30), 1)
    [made] = inferred(spec, session, [part_of([picture])])
    assert (made.array("image")[0] != whole(graph, picture)).any()


def test_what_the_frame_before_showed_is_computed_once() -> None:
    """A film on twos, then a change in one corner, then a frame that two windows share."""
    graph = convolutions(2)
    spec, session = brought(graph, (20, 20), 2)  # 3 x 3 tiles of 52 x 52
    first, other = noise(1, 52, 52, 3), noise(2, 52, 52, 3)
    corner = other.copy()
    corner[0, 0] ^= 1
    frames, index = [first, first.copy(), other, other.copy(), corner, first], [0, 1, 2, 3, 4, 4, 5]
    counting = Counting(session)
    [made] = inferred(spec, counting, [part_of(frames, index)])
    for number, image in zip(index, made.array("image"), strict=True):
        np.testing.assert_array_equal(image, whole(graph, frames[number]))
    assert counting.rows == 9 + 0 + 9 + 0 + 1 + 0 + 9
    assert made.meta.held == 9 + 9 + 8 + 9


def test_no_windows() -> None:
    spec, session = brought(convolutions(2), (20, 20), 2)
    part = part_of([noise(1, 52, 52, 3)])
    empty = part.with_arrays({**part.arrays, INDEX: np.zeros((0, 1), np.int32)}, pts=())
    [made] = inferred(spec, session, [empty])
    assert made.array("image").shape[0] == 0


def test_engines_have_one_shape() -> None:
    spec, _ = brought(convolutions(2), (20, 24), 2)
    assert spec.inputs[0].shape[1:] == (20, 24, 3)
    assert spec.identity != brought(convolutions(2), (20, 24), 3)[0].identity


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tile": [36, 64], "overlap": 18}, "which leaves nothing of a tile of 36"),
        ({"overlap": 18}, "overlap, border and align are for tiles"),
        ({"tile": [64, 65], "overlap": 18, "align": 2}, "no multiple of align = 2"),
        ({"tile": [64, 64], "multiple": 4}, 'tile is for size = "source" without multiple'),
        ({"tile": [64, 64], "size": [64, 64]}, 'tile is for size = "source" without multiple'),
    ],
)
def test_cards_that_are_refused(fields: dict[str, Any], reason: str) -> None:
    card = ModelCard.model_validate({"name": "m", "inputs": [{"name": "input", **fields}], "heads": HEAD})
    with pytest.raises(ModelError, match=reason):
        travelling_form(convolutions(1), "m", card)


def test_tiles_need_a_head_image_and_nothing_else() -> None:
    card = {"name": "m", "inputs": [{"name": "input", "tile": [20, 20]}]}
    spec, _ = travelling_form(convolutions(1), "m", ModelCard.model_validate(card))
    with pytest.raises(ModelError, match="need one input and one output, with a head image"):
        Infer(OperatorStage(kind="infer", name="infer", model="m"), spec).plan({})
    spec, _ = brought(convolutions(1), (20, 20), 1)
    reading = OperatorStage(kind="infer", name="infer", model="m", reads={"input": "pixels"})
    with pytest.raises(PipelineError, match="reads, and its model takes tiles"):
        Infer(reading, spec).plan({})

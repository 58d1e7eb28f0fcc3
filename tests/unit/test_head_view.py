"""Views: a marked pixel of a source is where the view says, in the picture that `engines.transforms` makes."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.heads.view import View, WayBack, view_of
from engines.transforms import Picture
from schemas.picture import PictureSpec

SIZES = [(48, 64), (64, 48), (90, 31), (33, 200), (40, 40), (17, 19)]
FITS = ("stretch", "crop", "letterbox")
side = st.integers(1, 4000)


def picture_of(source: tuple[int, int], size: tuple[int, int], fit: str, mark: tuple[int, int, int, int]) -> np.ndarray:
    """A gray source, white in `mark` (top, left, bottom, right), as the picture of a model."""
    pixels = np.full((*source, 3), 60, np.uint8)
    top, left, bottom, right = mark
    pixels[top:bottom, left:right] = 255
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return Picture(PictureSpec(size=size, fit=fit)).convert(frame)[0][..., 0]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SIZES)
def test_a_marked_square_is_found_where_it_was(source: tuple[int, int], fit: str) -> None:
    size = (96, 128)
    view = view_of(source, PictureSpec(size=size, fit=fit))
    (height, width), half = source, min(source) // 6
    mark = (height // 2 - half, width // 2 - half, height // 2 + half, width // 2 + half)
    rows, columns = np.nonzero(picture_of(source, size, fit, mark) > 157)  # at least half white
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    found = WayBack([view]).boxes(box, np.array([0]))[0]
    pixel = max(source[0] / view.scaled[0], source[1] / view.scaled[1], 1)
    np.testing.assert_allclose(found, [mark[1], mark[0], mark[3], mark[2]], atol=0.75 * pixel)


@pytest.mark.parametrize("source", [(48, 64), (90, 31), (40, 40)])
def test_a_marked_square_is_found_in_the_middle_of_a_larger_picture(source: tuple[int, int]) -> None:
    spec = PictureSpec(size=(96, 80), fit="crop", short_side=120)
    view = view_of(source, spec)
    (height, width), half = source, min(source) // 6
    mark = (height // 2 - half, width // 2 - half, height // 2 + half, width // 2 + half)
    pixels = np.full((*source, 3), 60, np.uint8)
    pixels[mark[0] : mark[2], mark[1] : mark[3]] = 255
    picture = Picture(spec).convert(av.VideoFrame.from_ndarray(pixels, format="rgb24"))[0][..., 0]
    rows, columns = np.nonzero(picture > 157)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    found = WayBack([view]).boxes(box, np.array([0]))[0]
    np.testing.assert_allclose(found, [mark[1], mark[0], mark[3], mark[2]], atol=0.75)


@pytest.mark.parametrize("source", SIZES)
def test_the_padding_is_where_the_view_has_no_content(source: tuple[int, int]) -> None:
    view = view_of(source, PictureSpec(size=(96, 128), fit="letterbox"))
    picture = picture_of(source, (96, 128), "letterbox", (0, 0, 0, 0))
    rows, columns = np.nonzero(picture)
    assert view.content == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


@given(
    st.tuples(side, side), st.tuples(side, side), st.sampled_from(sorted(FITS)), st.sampled_from(["center", "corner"])
)
def test_a_point_goes_there_and_back(source: tuple[int, int], size: tuple[int, int], fit: str, place: str) -> None:
    view = view_of(source, PictureSpec(size=size, fit=fit, pad_place=place))
    points = np.random.default_rng(1).uniform(0, 1, (9, 2)) * source[::-1]
    there = points * view.scaled[::-1] / np.array(source[::-1]) + (view.left, view.top)
    back = WayBack([view]).points(there, np.zeros(9, int))
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-4)
    top, left, bottom, right = view.content
    assert 0 <= top < bottom <= size[0]
    assert 0 <= left < right <= size[1]
    top, left, bottom, right = view.shown
    assert 0 <= top <= bottom <= source[0]
    assert 0 <= left <= right <= source[1]


def test_a_corner_has_its_padding_right_and_below() -> None:
    view = view_of((48, 64), PictureSpec(size=(100, 128), fit="letterbox", pad_place="corner"))
    assert view == View((48, 64), (100, 128), (96, 128))
    assert view.content == (0, 0, 96, 128)


def test_the_sources_own_size_is_padded_to_a_multiple() -> None:
    view = view_of((46, 64), PictureSpec(size="source", multiple=32))
    assert view == View((46, 64), (64, 64), (46, 64))
    assert view_of((46, 64), PictureSpec()).picture == (46, 64)


def test_points_outside_move_to_the_border_unless_they_may_not() -> None:
    way = WayBack([view_of((50, 100), PictureSpec(size=(100, 100), fit="letterbox"))])
    points, rows = np.array([[-5.0, 10.0], [105.0, 90.0]]), np.zeros(2, int)
    assert way.points(points, rows).tolist() == [[0, 0], [100, 50]]
    assert way.points(points, rows, clip=False).tolist() == [[-5, -15], [105, 65]]


def test_each_row_has_its_own_view() -> None:
    spec = PictureSpec(size=(100, 100))
    way = WayBack([view_of((100, 200), spec), view_of((50, 50), spec)])
    points = np.full((2, 3, 2), 10.0)
    assert way.points(points, np.array([1, 0])).tolist() == [[[5, 5]] * 3, [[20, 10]] * 3]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("clip", [True, False])
def test_points_are_the_same_beside_pictures_of_the_same_source_and_of_others(
    shape: tuple[int, ...], clip: bool
) -> None:
    """Bit for bit; the first point is at -0, which is the border."""
    view, other = (view_of(size, PictureSpec(size=(64, 64), fit="stretch")) for size in ((90, 31), (48, 64)))
    points = np.random.default_rng(0).uniform(-9, 80, (3, *shape, 2)).astype(np.float32)
    points[0] = -0.0
    alone = WayBack([view, view]).points(points, np.array([0, 1, 1]), clip)
    among = WayBack([view, other, view]).points(points, np.array([0, 2, 2]), clip)
    assert alone.tobytes() == among.tobytes()
    if clip:
        assert not np.signbit(alone).any()

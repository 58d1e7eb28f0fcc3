"""Parts of items of which some fail, and ragged arrays of no rows."""

import numpy as np

from engines.ragged import Ragged
from engines.texts import text_of_row, text_rows
from schemas.errors import MediaError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, make_part


def test_failed_rows_leave_a_part_and_their_items_have_the_error() -> None:
    items = [Item(name="a"), Item(name="b", error="no file"), Item(name="c"), Item(name="d")]
    arrays = {"text": text_rows(["one", "two", "three"]), "score": np.array([1.0, 2.0, 3.0]), "other": np.zeros(3)}
    part = make_part(IMAGES, arrays, (0, 0, 0), items=items).with_arrays(arrays, frames=3, lost=1)
    rest = part.without_failed({1: MediaError("too long", "cut it")}, ["text", "score", "absent"])
    assert [item.error for item in rest.meta.items] == ["", "no file", "too long: cut it", ""]
    assert (rest.meta.pts, rest.meta.frames, rest.meta.lost) == ((0, 0), 2, 2)
    assert sorted(rest.arrays) == ["score", "text"]
    text = rest.arrays["text"]
    assert isinstance(text, Ragged)
    assert [text_of_row(text, number) for number in range(len(text))] == ["one", "three"]
    assert rest.array("score").tolist() == [1.0, 3.0]
    none = part.without_failed({number: MediaError("bad") for number in range(3)}, ["text", "score"])
    assert {name: len(array) for name, array in none.arrays.items()} == {"text": 0, "score": 0}


def test_no_rows_have_the_type_and_shape_of_the_empty_one() -> None:
    none = Ragged.of([], np.zeros((0, 2), np.float32))
    assert (len(none), none.values.shape, none.values.dtype) == (0, (0, 2), np.float32)
    one = Ragged.of([np.ones((3, 2), np.float32)], np.zeros((0, 2), np.float32))
    assert (len(one), one.offsets.tolist(), one.values.dtype) == (1, [0, 3], np.float32)

"""Vectors of unit length: the same bits wherever they are made."""

from pathlib import Path

import numpy as np
import pytest

import engines
from engines.heads.embed import Embed
from engines.planned import Tensor
from engines.vectors import unit
from tests.unit.outputs_parts import VIDEO, format_of, make_part

ROOT = Path(engines.__file__).parent


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_rows_have_length_one_and_zeros_stay_zeros(dtype: str) -> None:
    rows = (np.random.default_rng(1).normal(size=(5, 700)) * 40).astype(dtype)
    rows[3] = 0
    made = unit(rows)
    assert made.dtype == np.float32
    lengths = [np.sqrt(sum(float(value) ** 2 for value in row)) for row in rows]
    expected = [
        [np.float32(float(value) / max(length, 1e-12)) for value in row]
        for row, length in zip(rows, lengths, strict=True)
    ]
    np.testing.assert_allclose(made, expected, rtol=1e-7)
    np.testing.assert_array_equal(made[3], 0)
    np.testing.assert_array_equal(unit(rows[0]), made[0])


def test_a_head_and_a_format_give_the_same_bits() -> None:
    rows = np.random.default_rng(2).normal(size=(4, 512)).astype(np.float32) * 1e-6
    rows[1] *= 1e-9  # longer than nothing, and shorter than any vector that says something
    head = Embed({}, {"y": Tensor("float32", ("N", 512))}, None).decode({"y": rows}, [])["embedding"]
    encoded = format_of("embeddings").encode(make_part(VIDEO, {"embedding": rows}, range(4))).arrays["embedding"]
    np.testing.assert_array_equal(np.asarray(head), encoded)
    np.testing.assert_array_equal(encoded, unit(rows))


def test_nothing_else_divides_by_the_length_of_vectors() -> None:
    """Another expression would round otherwise; `models/zero_shot.py` has a constant of a graph."""
    others = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if "1e-12" in path.read_text()}
    assert others == {"vectors.py", "heads/matte.py", "models/zero_shot.py"}

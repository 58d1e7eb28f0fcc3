"""embeddings: unit vectors in an npz, with the times or names that they are of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

ROWS = np.random.default_rng(5).normal(size=(5, 7)).astype(np.float32) * 1e3


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_vectors_have_unit_length_and_the_direction_they_had(tmp_path: Path, dtype: str) -> None:
    rows = (ROWS / 40).astype(dtype)
    parts = [
        make_part(VIDEO, {"embedding": rows[:2]}, [0, 1]),
        make_part(VIDEO, {"embedding": rows[2:]}, [2, 3, 25], 1),
    ]
    (path,) = assemble(format_of("embeddings"), tmp_path / "a", VIDEO, parts)
    assert path == tmp_path / "a.npz"
    with np.load(path) as file:
        assert set(file) == {"embedding", "times", "models", "identities", "revision", "sources"}
        assert (file["models"].tolist(), file["sources"].tolist()) == ([], [""]), "they are not known here"
        assert file["embedding"].dtype == np.float32
        expected = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
        np.testing.assert_allclose(file["embedding"], expected, atol=1e-7)
        assert file["times"].tolist() == [0, 0.04, 0.08, 0.12, 1]


def test_images_have_names_and_a_vector_of_zeros_stays_so(tmp_path: Path) -> None:
    items = [Item(name="a.jpg"), Item(name="bad.png", error="not an image"), Item(name="c.webp")]
    rows = np.array([[0, 0], [3, 4]], np.float32)
    (path,) = assemble(
        format_of("embeddings"), tmp_path / "a", IMAGES, [make_part(IMAGES, {"embedding": rows}, [0, 0], items=items)]
    )
    with np.load(path) as file:
        assert file["names"].tolist() == ["a.jpg", "c.webp"]
        assert file["failed"].tolist() == [["bad.png", "not an image"]]
        np.testing.assert_allclose(file["embedding"], [[0, 0], [0.6, 0.8]], atol=1e-7)


def test_the_options_name_the_array_and_keep_lengths(tmp_path: Path) -> None:
    part = make_part(VIDEO, {"pooled": ROWS, "more": ROWS[:, :2]}, range(5))
    (path,) = assemble(format_of("embeddings", array="pooled", normalise=False), tmp_path / "a", VIDEO, [part])
    with np.load(path) as file:
        np.testing.assert_array_equal(file["embedding"], ROWS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": ROWS},
            "format embeddings needs `embedding`, the part holds `x`: take a model whose card has",
        ),
        ({"embedding": ROWS[:, 0]}, r"`embedding` is float32 \[5\]: format embeddings takes numbers \[W, D\]"),
        ({"embedding": Ragged.of(list(ROWS))}, "`embedding` is rows of other lengths: format embeddings takes"),
        ({"embedding": ROWS[:2]}, r"output `embedding` has shape \[2, 7\] for 5 windows"),
    ],
)
def test_parts_that_hold_no_vectors(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        format_of("embeddings").encode(make_part(VIDEO, arrays, range(5)))


def test_what_a_plan_cannot_give_is_refused_at_once() -> None:
    planned = Tensor("float32", ("W", "D"))
    format_of("embeddings").check({"embedding": planned}, ["image"])
    with pytest.raises(PipelineError, match=r"`embedding` is float32 \[W, 7, 7\]: format embeddings takes"):
        format_of("embeddings").check({"embedding": replace(planned, shape=("W", 7, 7))}, ["image"])

"""docs/messages.md beside the schemas: every field, its type and its default; the arrays of every format."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.planned import UTF8
from engines.ragged import Ragged
from engines.registry import GROUPS
from schemas.media import Item
from tests.messages_doc import MODELS, type_of
from tests.unit.outputs_parts import IMAGES, VIDEO, format_of, make_part

DOC = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_the_table_of_a_message_has_all_its_fields(name: str) -> None:
    [section] = re.findall(rf"^##+ {name}\n(.*?)(?=^##|\Z)", DOC, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.+) \|$", section, re.MULTILINE)
    assert {field: (kind, default.strip()) for field, kind, default, _ in rows} == type_of(MODELS[name])


def test_the_tables_are_of_all_messages() -> None:
    import schemas.messages

    found = set(re.findall(r"[A-Z]\w+", str(schemas.messages.AnyMessage).replace("schemas.", ""))) & {
        name for name in dir(schemas.messages) if name[0].isupper()
    }
    assert {"Result", "Segment", "Done"} <= found
    assert found - {"Annotated", "Field", "FieldInfo"} <= set(MODELS)


def told(format_name: str, kind: str = "") -> set[str]:
    """What the row of a format has in code."""
    table = DOC.split("## Arrays of each format")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `") and f"`{format_name}`" in line.split("|")[1]]
    row = next(row for row in rows if kind in row.split("|")[1])
    return set(re.findall(r"`(\w+)", row.split("|", 2)[2]))


def test_every_format_has_its_row() -> None:
    for name in GROUPS["formats"].classes:
        assert told(name), name


PLANE = {"plane0": np.zeros((2, 48, 64), np.uint8)} | {f"plane{n}": np.zeros((2, 24, 32), np.uint8) for n in (1, 2)}
PIXELS = np.zeros((2, 4, 6, 3), np.uint8)
RAGGED = Ragged(np.zeros(5, np.float32), np.array([0, 2, 5]))
TEXTS = Ragged(np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3]))


@pytest.mark.parametrize(
    ("name", "kind", "timed", "arrays"),
    [
        ("jsonl", "", True, {"x": np.zeros((2, 3), np.float32)}),
        ("text", "", True, {"text": TEXTS}),
        ("embeddings", "", True, {"embedding": np.ones((2, 3), np.float32)}),
        ("sound", "", True, {"sound": RAGGED, "rate": np.full(2, 16000, np.int32)}),
        ("video", "of films", True, PLANE),
        ("video", "of images", False, {"pixels": PIXELS}),
        ("image", "of images", False, {"image": PIXELS}),
        ("image", "of films", True, {"image": np.zeros((2, 16, 16, 3), np.uint8)}),
    ],
)
def test_a_result_has_the_arrays_of_its_row(name: str, kind: str, timed: bool, arrays: dict[str, Any]) -> None:
    items = () if timed else (Item(name="a"), Item(name="b"))
    labels = {f"text{UTF8}": ()} if name == "text" else None
    made = format_of(name, labels).encode(make_part(VIDEO if timed else IMAGES, arrays, (0, 1), items=items))
    assert made.arrays
    assert {*made.arrays, *made.facts} <= told(name, kind)


def test_outputs_of_npz_have_their_own_names_and_offsets() -> None:
    made = format_of("npz").encode(make_part(VIDEO, {"x": np.zeros((2, 3), np.float32), "r": RAGGED}, (0, 1)))
    assert set(made.arrays) == {"x", "r", "r_offsets"}
    assert made.facts == {"ragged": ["r"]}
    assert made.arrays["r_offsets"].dtype == np.int64

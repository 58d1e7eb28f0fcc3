"""Arrays of text: a row is the UTF-8 of a text, `Ragged` uint8."""

from collections.abc import Sequence

import numpy as np

from engines.planned import Arrays, Tensor
from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.pipeline import OperatorStage

TEXT, REQUEST = "text", "request"


def text_tensor() -> Tensor:
    """Return the declaration of an array with a text for each window."""
    return Tensor("uint8", ("W", "count"), ragged=True, text=True)


def needed_text(stage: OperatorStage, inputs: Arrays, name: str, hint: str = "") -> Tensor:
    """Return the declaration of the array of text that a stage reads. Raises PipelineError where there is none."""
    text = inputs.get(name)
    if text is None or not text.text:
        there = ", ".join(f"`{each}`" for each in inputs) or "nothing"
        raise PipelineError(f"stage `{stage.name}` needs texts as `{name}`, and there is {there}", hint)
    return text


def text_rows(texts: Sequence[str | bytes]) -> Ragged:
    """Return an array of these texts; bytes are UTF-8 already."""
    rows = [text.encode() if isinstance(text, str) else text for text in texts]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Ragged(np.frombuffer(b"".join(rows), np.uint8), offsets)


def text_of_row(array: Ragged, number: int) -> str:
    """Return the text of one row; bytes that are no UTF-8, of another program's message, become U+FFFD."""
    return array.row(number).tobytes().decode(errors="replace")

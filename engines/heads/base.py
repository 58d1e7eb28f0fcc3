"""The protocol of heads, and what they share: where a picture came from, and options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from engines.ragged import Ragged

Array: TypeAlias = npt.NDArray[Any]
Value: TypeAlias = Array | Ragged


class HeadOptions(BaseModel):
    """Base of a head's options: immutable, unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class View:
    """Where a model's picture lies in its source, both upright.

    A point (x, y) of the picture, in pixels from the outer corner of the first one, is
    `((x - left) / scale_x, (y - top) / scale_y)` of the source. `width`, `height`: the source's size.
    """

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: float = 0.0
    top: float = 0.0


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a head knows of an output of the model, or declares of an array that it makes.

    `shape` begins with the batch; a free dimension is a name. `ragged`: a row has any number of values, and `shape`
    is `(name, "count", ...)`. `labels`: what the values, or the columns, of an array stand for.
    """

    dtype: str
    shape: tuple[int | str, ...]
    ragged: bool = False
    labels: tuple[str, ...] = ()


class Head(Protocol):
    """What some outputs of a model mean. Made once a session, has no state."""

    def __init__(
        self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: tuple[int, int] | None
    ) -> None:
        """`outputs`: all of the model's; `picture`: (height, width) of its picture input, None where that is free.

        Raises ModelError, in words, for options or outputs that do not fit.
        """
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the outputs that it reads; those that no head reads stay as they are."""
        ...

    def plan(self) -> dict[str, Tensor]:
        """The arrays that `decode` gives."""
        ...

    def decode(self, outputs: Mapping[str, Array], views: Sequence[View]) -> dict[str, Value]:
        """The meaning of a batch: `outputs [N, ...]` as the model gave them, a view for each row, arrays of N rows.

        A row's answer depends on that row alone. Coordinates are in pixels of the source. Raises ModelError.
        """
        ...

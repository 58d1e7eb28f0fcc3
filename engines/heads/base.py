"""The protocol of heads, and what they share: what is known of outputs, options, the choice of an output."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError, reason_of
from schemas.model import PictureSpec
from schemas.text import is_text


class HeadOptions(BaseModel):
    """Base of a head's options: immutable, unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


OptionsT = TypeVar("OptionsT", bound=HeadOptions)


def _checked_label(label: str) -> str:
    if len(label) > LABEL_CHARS or not is_text(label):
        raise ValueError(f"takes UTF-8 text of at most {LABEL_CHARS} characters")
    return label


LABEL_CHARS = 256
Labels: TypeAlias = tuple[Annotated[str, AfterValidator(_checked_label)], ...]  # the names of classes


class Head(Protocol):
    """What some outputs of a model mean. Made once a session, has no state."""

    by_source: bool
    """Whether the size of a row's arrays depends on its view: then the rows of one call have equal views."""

    needs_view: bool
    """Whether it needs the picture that the model's input is made of: its arrays are about places in the source."""

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        """`outputs`: all of the model's; `picture`: how its picture input is made, None for a model without one.

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

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """The meaning of a batch: `outputs` as the model gave them, a view for each row, arrays with a row for each.

        An output is `[N, ...]`, or ragged where its rows have different lengths. The pictures of a batch have one size.
        A row's answer depends on that row alone. Coordinates are in pixels of the source. Raises ModelError.
        """
        ...


def parse_options(kind: type[OptionsT], options: Mapping[str, Any], owner: str) -> OptionsT:
    """Options as `kind`. Raises ModelError that names the option, and says that it is `owner`'s."""
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option, known = ".".join(str(part) for part in first["loc"]), ", ".join(kind.model_fields)
        found = f", found {first['input']!r}" if first["type"] not in ("extra_forbidden", "missing") else ""
        what = f"{owner}, option {option}: {reason_of(first)}{found}"
        raise ModelError(what, f"the options of {owner} are: {known}") from error


def own_and_other(kind: type[HeadOptions], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that `kind` has, and those that are for something else, a decoder."""
    own = {name: value for name, value in options.items() if name in kind.model_fields}
    return own, {name: value for name, value in options.items() if name not in own}


def chosen_output(outputs: Mapping[str, Tensor], wanted: str, owner: str, option: str = "output") -> str:
    """The output called `wanted`, or the only one. Raises ModelError."""
    if wanted in outputs:
        return wanted
    there = ", ".join(outputs)
    if wanted:
        raise ModelError(f"{owner}: the model has no output {wanted}", f"its outputs are: {there}")
    if len(outputs) != 1:
        raise ModelError(f"{owner}: the model has several outputs", f'name one by {option} = "...", of: {there}')
    return there


def row_width(tensor: Tensor) -> int:
    """How many values a row of an output has; 0 where a dimension is free."""
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(tensor.shape) - 1 else 0


def check_labels(labels: tuple[str, ...], classes: int | None, owner: str) -> None:
    """Raise ModelError where there are labels, and not one for each of the classes; None or 0: any number of them."""
    if labels and classes and len(labels) != classes:
        raise ModelError(f"{owner}: {len(labels)} labels for {classes} classes", "give a label for each class")


def dense(value: Value, name: str) -> Array:
    """An output that has rows of equal lengths. Raises ModelError."""
    if isinstance(value, Ragged):
        raise ModelError(f"output {name} has rows of different lengths", "its head needs rows of one length")
    return value

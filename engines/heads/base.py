"""The protocol of heads, and what they share: their options, labels, and the choice of an output."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engines.heads.view import View
from engines.part import Array, Value
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import ModelError, OptionError, reason_of
from schemas.known_fields import hint_of
from schemas.picture import PictureSpec
from schemas.text import is_text


class HeadOptions(BaseModel):
    """Base of the options of a head or a decoder: immutable; an unknown option is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


OptionsT = TypeVar("OptionsT", bound=HeadOptions)


def _checked_label(label: str) -> str:
    if len(label) > LABEL_CHARS or not is_text(label):
        raise ValueError(f"takes UTF-8 text of at most {LABEL_CHARS} characters")
    return label


LABEL_CHARS = 256
Labels: TypeAlias = tuple[Annotated[str, AfterValidator(_checked_label)], ...]  # the names of classes
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]  # a score, a threshold, an overlap
Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000)]


class Head(Protocol):
    """Makes boxes, classes, pictures and so on of the outputs of a model. One for each session; it has no state."""

    Options: ClassVar[type[HeadOptions]]
    """The options of its kind, without those of a decoder."""

    by_source: bool
    """Whether the size of its arrays depends on the view; then all rows of one call have equal views."""

    needs_view: bool
    """Whether its arrays have positions in the source, so that the model needs a picture input."""

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        """`outputs`: all outputs of the model; `picture`: how its picture input is made, None if it has none.

        Raises ModelError for options or outputs that do not fit.
        """
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the outputs that it reads; outputs that no head reads are results as they are."""
        ...

    def plan(self) -> dict[str, Tensor]:
        """Return the arrays that `decode` will return."""
        ...

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """Return arrays with one row for each row of the model's `outputs`; `views` has one view for each row.

        An output is `[N, ...]`, or ragged if its rows have different lengths. All pictures of a batch have one size.
        The result of a row depends on that row only. Coordinates are in pixels of the source. Raises ModelError.
        """
        ...


def parse_options(kind: type[OptionsT], options: Mapping[str, Any], owner: str) -> OptionsT:
    """Return options as `kind`. Raises OptionError for the first that is wrong."""
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option, there = tuple(map(str, first["loc"])), f"the options of {owner} are: {', '.join(kind.model_fields)}"
        found = f", found {first['input']!r}" if first["type"] not in ("extra_forbidden", "missing") else ""
        raise OptionError.of(owner, option, f"{reason_of(first)}{found}", hint_of(first, kind, there)) from error


def own_and_other(kind: type[HeadOptions], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into those that `kind` has, and the others, which are for a decoder."""
    own = {name: value for name, value in options.items() if name in kind.model_fields}
    return own, {name: value for name, value in options.items() if name not in own}


def chosen_output(outputs: Mapping[str, Tensor], wanted: str, owner: str, option: str = "output") -> str:
    """Return the name of the output `wanted`; if that is empty, of the only output. Raises ModelError."""
    if wanted in outputs:
        return wanted
    known = ", ".join(outputs)
    if wanted:
        raise ModelError(f"{owner}: the model has no output {wanted}", f"its outputs are: {known}")
    if len(outputs) != 1:
        raise ModelError(f"{owner}: the model has several outputs", f'name one by {option} = "...", of: {known}')
    return known


def row_width(tensor: Tensor) -> int:
    """Return the number of values of one row of an output; 0 if a dimension is free."""
    sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(tensor.shape) - 1 else 0


def check_labels(labels: tuple[str, ...], classes: int | None, owner: str) -> None:
    """Raise ModelError if there are labels, but not one for each class; None or 0: their number is unknown."""
    if labels and classes and len(labels) != classes:
        raise ModelError(f"{owner}: {len(labels)} labels for {classes} classes", "give a label for each class")


def dense(value: Value, name: str) -> Array:
    """Return an output whose rows have equal lengths. Raises ModelError for a ragged one."""
    if isinstance(value, Ragged):
        raise ModelError(f"output {name} has rows of different lengths", "its head needs rows of one length")
    return value

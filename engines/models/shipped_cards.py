"""The model cards that come with rigflow, a file each in `engines/models/cards`, and which of them a model fits.

A card is given to a model only if everything that it says of the graph is true: a file's name alone proves nothing.
See docs/models.md, "Cards that come with rigflow".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import AfterValidator, Field, ValidationError

from engines.models.card_file import read_card
from engines.models.companions.base import Line, Model, Port, Sure
from engines.models.companions.coco import LABELS
from schemas.declared import Spec
from schemas.errors import ModelError, format_field_error
from schemas.model import HeadSpec, InputCard

_FOLDER = Path(__file__).with_name("cards")
_TOLERANCE = 0.005  # exporters fold constants in, or leave out a few
_TENSOR = re.compile(r"(\S*) ?\[(.*)\]")
_SIZE = re.compile(r"(\d+)|(\d*)([A-Z])(?:/(\d+))?")
_FORM = 'is written as in "input [N, 3, H, W]": a size is a number, or a letter as in H, 4H, H/8; N may be anything'
_Sizes: TypeAlias = Mapping[str, int]


class _Tensor(NamedTuple):
    """An input or output of a graph; "" is any name."""

    name: str
    shape: tuple[str, ...]


def _tensor(text: str) -> _Tensor:
    found = _TENSOR.fullmatch(text)
    shape = tuple(found[2].split(", ")) if found and found[2] else ()
    if found is None or not all(_SIZE.fullmatch(each) for each in shape):
        raise ValueError(_FORM)
    return _Tensor(found[1], shape)


def _well_formed(tensors: tuple[str, ...]) -> tuple[str, ...]:
    for text in tensors:
        _tensor(text)
    return tensors


_Tensors: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_well_formed)]


class Fits(Spec):
    """What a model has to be for a card to be its own.

    `files`: patterns of the file's name without its suffix, as of a shell; case, `-`, `_`, `.` and blanks are equal.
    None: any name. `parameters`: how many numbers the graph has, or the least and the most. `takes` and `gives`: all
    inputs, and all outputs for a picture of the trial, in any order where they have names.
    """

    files: tuple[str, ...] = ()
    parameters: int | tuple[int, int] | None = None
    takes: _Tensors
    gives: _Tensors

    def match(self, model: Model) -> Sequence[int] | None:
        """Return which input of the graph each one of `takes` is; None if the model is another one."""
        stem = _spelled(model.path.stem)
        if self.files and not any(_is_named(stem, pattern) for pattern in self.files):
            return None
        if self.parameters is not None:
            least, most = self.parameters if isinstance(self.parameters, tuple) else (self.parameters,) * 2
            if not least * (1 - _TOLERANCE) <= model.parameters <= most * (1 + _TOLERANCE):
                return None
        inputs = [(port.name, _fed(number, port, model)) for number, port in enumerate(model.inputs)]
        for order, sizes in _assigned(tuple(map(_tensor, self.takes)), inputs, {}):
            if next(_assigned(tuple(map(_tensor, self.gives)), list(model.shapes.items()), sizes), None):
                return order
        return None


class ShippedCard(Spec):
    """A model card with what it is for. `inputs` are in the order of `takes`, their names are optional.

    `file` and `page`: the file that its authors publish, and where, for errors that a model is missing; `add`: what is
    then added, if not the file. `weaker`: the network with which `rigflow model add --denoise` mixes it, a file of that
    name beside it.
    """

    name: str = ""
    description: str
    licence: str = ""
    file: str = ""
    page: str = ""
    add: str = ""
    weaker: str = ""
    fits: Annotated[tuple[Fits, ...], Field(min_length=1)]
    inputs: tuple[dict[str, Any], ...] = ()
    heads: tuple[HeadSpec, ...] = ()

    def lines(self, model: Model, stated: Mapping[str, Any], source: str) -> Sequence[Line]:
        """Return the lines of the card for a model; none if it is not for it, or contradicts a line of `stated`."""
        order = next((found for each in self.fits if (found := each.match(model)) is not None), None)
        if order is None:
            return []
        about = "; ".join(each for each in (self.description, f"licence {self.licence}", self.page) if each)
        fields: dict[str, Any] = {"name": self.name, "description": about}
        for place, given in zip(order, self.inputs, strict=False):
            fields |= {f"inputs.{place}.{field}": value for field, value in given.items() if field != "name"}
            sides = [side for side in model.inputs[place].shape[2:4] if isinstance(side, int)]
            if "tile" in given and sides:
                fields[f"inputs.{place}.tile"] = sides  # a graph of one size has tiles of it
        for number, head in enumerate(self.heads):
            fields |= {f"heads.{number}.{field}": value for field, value in {"kind": head.kind, **head.options}.items()}
        told = {field for field in fields if field.startswith("heads.") and field.rpartition(".")[2] in _MEANING}
        if any(field in stated and stated[field] != fields[field] for field in told):
            return []
        why = f"rigflow's card {source}: the name, the graph and its {model.parameters:,} parameters are those of it"
        return [Line(field, value, Sure.certain, why) for field, value in fields.items() if value != ""]


_MEANING = ("kind", "decoder")  # of a head: with another one it is another model


@cache
def shipped_cards() -> Mapping[str, ShippedCard]:
    """Return all cards by the names of their files. Raises ModelError."""
    return {path.stem: load_card(path) for path in sorted(_FOLDER.glob("*.toml"))}


def load_card(path: Path) -> ShippedCard:
    """Read one card; the `labels` of a head may be the name of a list in `LABELS`. Raises ModelError."""
    fields = read_card(path)
    for head in fields.get("heads", ()):
        if isinstance(named := head.get("labels"), str):
            if named not in LABELS:
                raise ModelError(f"model card {path}: there are no labels {named}", f"there are {', '.join(LABELS)}")
            head["labels"] = list(LABELS[named])
    try:
        card = ShippedCard.model_validate(fields)
        for given in card.inputs:
            InputCard.model_validate({"name": "", **given})
    except ValidationError as error:
        raise ModelError(f"model card {path}, {format_field_error(error.errors()[0])}", "see docs/models.md") from error
    return card


def lines_of_shipped(model: Model, stated: Mapping[str, Any]) -> Sequence[Line]:
    """Return the lines of the card that a model fits, first of those that know its file's name; none without one.

    `stated`: fields of which files beside the model or its graph are certain.
    """
    cards = sorted(shipped_cards().items(), key=lambda each: not any(fits.files for fits in each[1].fits))
    return next((lines for name, card in cards if (lines := card.lines(model, stated, f"{name}.toml"))), [])


def publisher_of(name: str) -> ShippedCard | None:
    """Return the card of a model that is called so once it is downloaded and added, if there is one."""
    cards = (card for card in shipped_cards().values() if card.file)
    return next((card for card in cards if name in (card.name, Path(card.add or card.file).stem)), None)


def card_by_name(stem: str) -> ShippedCard | None:
    """Return the card of which a file's name is, whatever is in the file."""
    name = _spelled(stem)
    cards = shipped_cards().values()
    return next((card for card in cards for fits in card.fits for each in fits.files if _is_named(name, each)), None)


def _is_named(stem: str, pattern: str) -> bool:
    return fnmatchcase(stem, _spelled(pattern))


def _spelled(name: str) -> str:
    return re.sub(r"[-_. ]+", "-", name.lower())


def _fed(number: int, port: Port, model: Model) -> tuple[int | str, ...]:
    """Return the shape that an input had in the trial."""
    picture = model.picture
    if picture is None or picture.number != number or model.picture_values is None:
        return port.shape
    sides = model.picture_values.shape[:2]
    first = len(port.shape) - (2 if picture.layout == "nchw" else 3)
    return (*port.shape[:first], *sides, *port.shape[first + 2 :])


def _assigned(
    wanted: Sequence[_Tensor], found: Sequence[tuple[str, tuple[int | str, ...]]], sizes: _Sizes
) -> Iterator[tuple[tuple[int, ...], _Sizes]]:
    """Yield the ways to find each wanted tensor among all those found: their places, and the sizes of the letters."""
    if len(wanted) == len(found):
        yield from _placed(wanted, found, sizes, ())


def _placed(
    wanted: Sequence[_Tensor],
    found: Sequence[tuple[str, tuple[int | str, ...]]],
    sizes: _Sizes,
    taken: tuple[int, ...],
) -> Iterator[tuple[tuple[int, ...], _Sizes]]:
    if len(taken) == len(wanted):
        yield taken, sizes
        return
    tensor = wanted[len(taken)]
    for place, (name, shape) in enumerate(found):
        if (
            place not in taken
            and tensor.name in ("", name)
            and (bound := _bound(tensor.shape, shape, sizes)) is not None
        ):
            yield from _placed(wanted, found, bound, (*taken, place))


def _bound(wanted: Sequence[str], shape: Sequence[int | str], sizes: _Sizes) -> _Sizes | None:
    """Return the sizes of the letters after one more shape; None if it contradicts them."""
    if len(wanted) != len(shape):
        return None
    bound = dict(sizes)
    for text, size in zip(wanted, shape, strict=True):
        if text == "N":
            continue
        if not isinstance(size, int):
            return None
        found = _SIZE.fullmatch(text)
        assert found is not None
        number, times, letter, parts = found.groups()
        if letter and letter not in bound and not times and not parts:
            bound[letter] = size
        expected = int(number) if number else bound.get(letter, -1) * int(times or 1) / int(parts or 1)
        if abs(expected - size) >= 1:
            return None
    return bound

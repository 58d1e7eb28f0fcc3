"""Proposes a model card from the files beside a model, its content and shapes, each line with sureness and reason."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from engines.content import Content, ModelFiles
from engines.inference import trial
from engines.models.companions import COMPANIONS, lines_of
from engines.models.companions.base import Line, Model, Sure
from engines.models.folder_kinds import kind_of_folder
from engines.models.observe import observe
from engines.models.shipped_cards import lines_of_shipped
from engines.own_process import in_own_process
from engines.registry import load
from schemas.errors import ModelError, format_field_error
from schemas.model import InputCard, ModelCard, TensorSpec
from schemas.model_files import TextSpec
from schemas.text import did_you_mean

MOST_ITEMS = 1000  # inputs or heads
_TOGETHER = (  # of an input
    ("scale", "mean", "std"),
    ("fit", "pad_value", "pad_place", "short_side", "background"),
    ("resize", "antialias"),
)
_NAMES_OPTIONS = re.compile(r"heads\.\d+\.(kind|decoder)")  # fields that decide which options a head has
_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Lines of a card, one for each field, sorted by field; `model` is the model that they describe."""

    model: Model
    lines: tuple[Line, ...]

    def changed(self, fields: Mapping[str, Any], why: str) -> "Proposal":
        """Return the proposal with these fields set to the given values.

        A head whose kind or decoder becomes another one loses what was guessed for the old one, and options that the
        new one does not have. Raises ModelError: there is no such kind or decoder.
        """
        changed = _changed_heads(self.lines, fields)
        there = [line for line in self.lines if _stays(line, changed)]
        kept = [line for line in there if not any(_covers(field, line.field) for field in fields)]
        given = [Line(field, value, Sure.certain, why) for field, value in fields.items()]
        return replace(self, lines=_sorted([*kept, *given]))

    def written(self, fields: Mapping[str, Any], why: str) -> "Proposal":
        """Change the proposal by a model card that a person wrote; its inputs and heads need no guesses.

        An input that reads an array has no picture, so no other line of it is kept.
        """
        items = {".".join(field.split(".")[:2]) for field in fields if "." in field}
        reading = {field.removesuffix(".reads") for field in fields if field.endswith(".reads")}
        kinds = [line.sure for line in self.lines if line.field == "heads.0.kind"]
        heads = Sure.guess not in kinds or any(field.startswith("heads.") for field in fields)

        def stays(line: Line) -> bool:
            item = ".".join(line.field.split(".")[:2])
            if item in reading:
                return line.field.endswith(".name")
            if line.field.startswith("heads"):
                return heads
            return item not in items or line.sure is not Sure.guess

        return replace(self, lines=tuple(filter(stays, self.lines))).changed(fields, why)

    def card(self) -> ModelCard:
        """Return the card of these lines. Raises ModelError for a field that no card has."""
        fields = _nested(self.lines)
        inputs = fields.get("inputs", [])
        if isinstance(inputs, list) and all(isinstance(each, dict) for each in inputs):
            for given, port in zip(inputs, self.model.inputs, strict=False):
                given.setdefault("name", port.name)
            fields["inputs"] = [each for each in inputs if len(each) > 1]
        try:
            return ModelCard.model_validate({key: value for key, value in fields.items() if value != []})
        except ValidationError as error:
            detail = error.errors()[0]
            what = f"model card of {self.model.path.name}, {format_field_error(detail)}"
            raise ModelError(what, _known_fields(detail["loc"])) from error


def _known_fields(place: Sequence[int | str]) -> str:
    """Return a hint for a wrong field of a card: the field with the most similar name, and all that there are."""
    parts: dict[tuple[str, int], type[BaseModel]] = {
        ("inputs", 3): InputCard,
        ("outputs", 3): TensorSpec,
        ("text", 2): TextSpec,
    }
    card = ModelCard if len(place) == 1 else parts.get((str(place[0]), len(place)))
    if card is None or place[-1] in card.model_fields:
        return "see docs/models.md"
    known = f"there are {', '.join(card.model_fields)}, see docs/models.md"
    return did_you_mean(str(place[-1]), card.model_fields, known)


def propose(path: Path, content: Content, name: str = "") -> Proposal:
    """Propose the card of the model `content`, the file at `path`, with the name `name`, by default that of the file.

    Raises ModelError: it, or a file beside it, cannot be read.
    """
    if (kind := kind_of_folder(path.parent)) is not None and path.name == kind.main:
        lines = kind.lines(path.parent)
        return Proposal(Model(path, (), ()), merged([lines], name or path.parent.name))
    model = in_own_process(str(path), "loads", trial.HINT, observe, content, path)
    proposed = [lines_of(each, model) for each in COMPANIONS]
    certain = [[line for line in lines if line.sure is Sure.certain] for lines in proposed]
    stated = {line.field: line.value for lines in reversed(certain) for line in lines}
    if card := lines_of_shipped(model, stated):  # it replaces what the companions suppose, not what is certain
        proposed = [*certain, card]
    lines = merged(proposed, name or path.stem)
    files = {file.name for file in content.files} if isinstance(content, ModelFiles) else set()
    if not {line.value for line in lines if line.field in ("text.graph", "text.tokenizer")} <= files:
        lines = tuple(line for line in lines if not line.field.startswith("text."))  # a file without its folder
    return Proposal(model, lines)


def merged(proposed: Iterable[Sequence[Line]], name: str) -> tuple[Line, ...]:
    """Return the surest line for each field, the first of equals; dependent fields come from one source.

    A companion that reports another kind of model than the surest one is ignored.
    """
    found = [lines for lines in proposed if lines]
    heads = [line for lines in found for line in lines if line.field == "heads.0.kind"]
    kind = max(heads, key=lambda line: line.sure, default=None)
    name = _UNNAMED.sub("-", name).strip("-._") or "model"
    groups = {"name": (Sure.guess, [Line("name", name, Sure.certain, "the name of the file or folder")])}
    for lines in found:
        if kind is None or all(line.value == kind.value for line in lines if line.field == "heads.0.kind"):
            for group, members in _grouped(lines).items():
                sure = max(line.sure for line in members)
                if group not in groups or sure > groups[group][0]:
                    groups[group] = (sure, members)
    best = [line for _, members in groups.values() for line in members]
    if kind is None:  # labels of an unknown head cannot be used
        best = [line for line in best if not line.field.startswith("heads.")]
    tiled = {line.field.removesuffix(".tile") for line in best if line.field.endswith(".tile")}
    return _sorted(line for line in best if line.field.removesuffix(".size") not in tiled)  # frames have any size


def _grouped(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Group lines by the fields that depend on each other."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        parent, _, last = line.field.rpartition(".")
        together = (
            next((each for each in _TOGETHER if last in each), (last,)) if parent.startswith("inputs") else (last,)
        )
        groups.setdefault(f"{parent}.{together[0]}".lstrip("."), []).append(line)
    return groups


def _sorted(lines: Iterable[Line]) -> tuple[Line, ...]:
    order = ("name", "version", "description", "batch", "inputs", "outputs", "text", "speech", "recogniser", "heads")
    ranks = {field: rank for rank, field in enumerate(order)}
    return tuple(sorted(lines, key=lambda line: (ranks.get(line.field.split(".")[0], 9), _numbered(line.field))))


def _numbered(field: str) -> tuple[Any, ...]:
    """Sort key: `inputs.2` before `inputs.10`, and a head's kind before its options."""
    return tuple((0, int(part), "") if part.isdigit() else (1, part != "kind", part) for part in field.split("."))


def _changed_heads(lines: Sequence[Line], fields: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the options of each head that has another kind or decoder in `fields` than in `lines`, by its path."""
    before = {line.field: line.value for line in lines}
    after = before | dict(fields)
    changed = {
        field.rpartition(".")[0]
        for field, value in fields.items()
        if _NAMES_OPTIONS.fullmatch(field) and before.get(field, value) != value
    }
    return {head: _options_of(after.get(f"{head}.kind"), after.get(f"{head}.decoder")) for head in changed}


def _options_of(kind: Any, decoder: Any) -> set[str]:
    """Return the names of the options of a head, and of its decoder if it has one. Raises ModelError."""
    names = set(load("heads", kind).Options.model_fields) if isinstance(kind, str) else set()
    if "decoder" in names and isinstance(decoder, str):
        names |= set(load("decoders", decoder).Options.model_fields)
    return names


def _stays(line: Line, changed: Mapping[str, set[str]]) -> bool:
    """Return whether a line is none of a changed head, or a certain one that is an option of it still."""
    path = line.field.split(".")
    options = changed.get(".".join(path[:2]))
    if options is None or path[2:] in (["kind"], ["decoder"]):
        return options is None or path[2] == "kind" or "decoder" in options
    return line.sure is Sure.certain and path[2] in options


def _covers(field: str, other: str) -> bool:
    return other == field or other.startswith(f"{field}.") or field.startswith(f"{other}.")


def _nested(lines: Iterable[Line]) -> dict[str, Any]:
    """Convert `{"inputs.0.mean": 1}` to `{"inputs": [{"mean": 1}]}`."""
    top: dict[str, Any] = {}
    for line in lines:
        here: Any = top
        parts = line.field.split(".")
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            fresh: Any = [] if following.isdigit() else {} if following else line.value
            if isinstance(here, dict) and not part.isdigit():
                here = here.setdefault(part, fresh)
            elif isinstance(here, list) and part.isdigit() and int(part) < MOST_ITEMS:
                here.extend({} for _ in range(int(part) + 1 - len(here)))
                here = here[int(part)]
            else:
                raise ModelError(f"a model card has no field {line.field}", "see docs/models.md")
    return top

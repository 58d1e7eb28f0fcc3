"""Reads labels from a text file: one a line, or `index label`, or ImageNet's `n01440764 tench, Tinca tinca`."""

import re
from collections.abc import Mapping, Sequence

from engines.models.companions.base import Line, Model, Sure, text_of

_NAMES = ("labels.txt", "classes.txt", "class_names.txt", "synset*.txt", "imagenet_classes.txt", "*.names", "names.txt")
_SYNSET = re.compile(r"^n\d{8}\s+")
_NUMBERED = re.compile(r"^(\d+)\s*[:,\s]\s*(\S.*)$")


def look(model: Model) -> Sequence[Line]:
    """Labels of the head."""
    path = next(model.beside(*_NAMES), None)
    if path is None:
        return []
    found = parse(text_of(path))
    fits = any(len(found) in shape or len(found) in _without_boxes(shape) for shape in model.shapes.values())
    count = f"{path.name} has {len(found)} lines"
    sure, why = (Sure.certain, count) if fits else (Sure.guess, f"{count}, no output has as many")
    return [Line("heads.0.labels", found, sure, why)] if found else []


def parse(text: str) -> list[str]:
    """The labels of a text, in order; `?` for a number that has none."""
    lines = [_SYNSET.sub("", line.strip()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    numbered = [match for line in lines if (match := _NUMBERED.match(line))]
    if lines and len(numbered) == len(lines):
        return in_order({int(match[1]): match[2].strip() for match in numbered}) or lines
    return lines


def in_order(labels: Mapping[int, str]) -> list[str]:
    """Labels by number as a list, `?` for a number that has none; empty where most numbers have none."""
    if not labels or max(labels) > 2 * len(labels):
        return []
    return [labels.get(number, "?") for number in range(max(labels) + 1)]


def _without_boxes(shape: Sequence[int | str]) -> set[int]:
    """Counts of classes where a row has its box (4) and perhaps an objectness (1) in front, or a background class."""
    return {size - extra for size in shape if isinstance(size, int) for extra in (1, 4, 5)}

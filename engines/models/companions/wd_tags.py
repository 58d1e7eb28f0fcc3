"""Reads selected_tags.csv of the WD taggers: tag_id, name, category, count; and tag_mapping.json of later ones."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any

from engines.models.companions.base import Line, Model, Sure, json_of, text_of
from schemas.errors import ModelError

_CATEGORIES = {"9": "rating", "0": "general", "4": "character", "3": "copyright", "1": "artist", "5": "meta"}


def selected_tags(model: Model) -> Sequence[Line]:
    """Tags and their categories, and the picture that this family takes: BGR bytes as floats, padded with white."""
    path = next(model.beside("selected_tags.csv"), None)
    if path is None:
        return []
    try:
        rows = csv.DictReader(text_of(path).splitlines(), restval="")
        tags = [(row["name"], _CATEGORIES.get(row["category"], row["category"])) for row in rows]
    except (csv.Error, KeyError) as error:
        raise ModelError(f"{path} has no columns name and category", "get it again, or move it away") from error
    return [*_tag_lines(model, tags, path.name), *_wd_picture(model, path.name)]


def tag_mapping(model: Model) -> Sequence[Line]:
    """Tags and their categories: `{"0": {"tag": ..., "category": ...}}`, or `{"idx_to_tag", "tag_to_category"}`."""
    path = next(model.beside("tag_mapping.json"), None)
    if path is None:
        return []
    found = json_of(path)
    try:
        if "idx_to_tag" in found:
            names = found["idx_to_tag"]
            of = found.get("tag_to_category", {})
            tags = [(str(names[key]), str(of.get(names[key], "general")).lower()) for key in _by_number(names)]
        else:
            tags = [(str(found[key]["tag"]), str(found[key]["category"]).lower()) for key in _by_number(found)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not say tag and category of each number", "get it again") from error
    return _tag_lines(model, tags, path.name)


def _tag_lines(model: Model, tags: Sequence[tuple[str, str]], file: str) -> list[Line]:
    if not tags:
        return []
    fits = any(len(tags) in shape for shape in model.shapes.values())
    sure = Sure.certain if fits else Sure.guess
    why = f"{file} has {len(tags)} tags" + ("" if fits else ", no output has as many")
    return [
        Line("heads.0.kind", "tag", sure, why),
        Line("heads.0.labels", [name for name, _ in tags], sure, why),
        Line("heads.0.categories", [category for _, category in tags], sure, f"{file}: category"),
        Line("heads.0.thresholds", {"general": 0.35, "character": 0.85}, Sure.likely, "what users of taggers take"),
        Line("heads.0.best_only", ["rating"], Sure.likely, "of the ratings one applies"),
    ]


def _wd_picture(model: Model, file: str) -> Iterable[Line]:
    picture = model.picture
    if picture is None or picture.layout != "nhwc":
        return []
    why = f"{file}: a WD tagger takes BGR, 0 ... 255, on white"
    values: dict[str, Any] = {"colours": "bgr", "scale": 1.0, "fit": "letterbox", "pad_value": 255, "resize": "area"}
    return [Line(f"{picture.path}.{name}", value, Sure.likely, why) for name, value in values.items()]


def _by_number(names: Any) -> list[str]:
    keys = sorted(names, key=int)
    if [int(key) for key in keys] != list(range(len(keys))):
        raise ValueError("numbers are missing")
    return keys

"""Reads lists of tags: selected_tags.csv of the WD taggers, tag_mapping.json of later ones, DeepDanbooru's tags.txt.

Source of how pictures are made: https://huggingface.co/spaces/SmilingWolf/wd-tagger, app.py, by the models' author:
transparency is laid on white, the picture is padded to a square with white and resized by Pillow's bicubic filter.
Other tools resize first, or by other filters, and their scores are a little different.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engines.models.companions.base import Line, Model, Sure, json_of, text_of
from schemas.errors import ModelError

WD_PICTURE: Mapping[str, Any] = {
    "colours": "bgr",
    "scale": 1.0,
    "fit": "pad",
    "pad_value": 255,
    "background": 255,
    "resize": "bicubic",
    "antialias": True,
}
# KichangKim/DeepDanbooru, deepdanbooru/data/dataset_wrapper.py; the padding there may lie half a pixel aside
_DEEPDANBOORU_PICTURE: Mapping[str, Any] = {
    "colours": "rgb",
    "scale": 1 / 255,
    "fit": "letterbox",
    "pad_value": "edge",
    "background": 255,
    "resize": "area",
}
_THRESHOLDS = {"general": 0.35, "character": 0.85}
_RATING = re.compile(r"rating:\w+")
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


def tag_list(model: Model) -> Sequence[Line]:
    """Tags of DeepDanbooru's tags.txt, a line each, of which some are `rating:safe` and the like.

    Those that are in tags-character.txt too are characters. A file without ratings is no such list.
    """
    path = next(model.beside("tags.txt"), None)
    names = [] if path is None else [line.strip() for line in text_of(path).splitlines() if line.strip()]
    if path is None or not any(map(_RATING.fullmatch, names)):
        return []
    known = next(model.beside("tags-character.txt"), None)
    characters = set() if known is None else {line.strip() for line in text_of(known).splitlines()}
    tags = [
        (name, "rating" if _RATING.fullmatch(name) else "character" if name in characters else "general")
        for name in names
    ]
    thresholds = dict.fromkeys([category for _, category in tags if category != "rating"], 0.5)
    lines = _tag_lines(model, tags, path.name, thresholds)
    why = f"{path.name}: DeepDanbooru takes RGB, 0 ... 1, its border repeated around"
    return [*lines, *_picture_lines(model, _DEEPDANBOORU_PICTURE, why)]


def _tag_lines(
    model: Model, tags: Sequence[tuple[str, str]], file: str, thresholds: Mapping[str, float] = _THRESHOLDS
) -> list[Line]:
    if not tags:
        return []
    there = {category for _, category in tags}
    fits = any(len(tags) in shape for shape in model.shapes.values())
    usual = {category: least for category, least in thresholds.items() if category in there}
    sure = Sure.certain if fits else Sure.guess
    why = f"{file} has {len(tags)} tags" + ("" if fits else ", no output has as many")
    return [
        Line("heads.0.kind", "tag", sure, why),
        Line("heads.0.labels", [name for name, _ in tags], sure, why),
        Line("heads.0.categories", [category for _, category in tags], sure, f"{file}: category"),
        Line("heads.0.thresholds", usual, Sure.likely, "what users of taggers take"),
        Line("heads.0.best_only", [name for name in ("rating",) if name in there], Sure.likely, "one rating applies"),
        *_activation(model),
    ]


def _activation(model: Model) -> Iterable[Line]:
    """Whether scores have their sigmoid, by a trial."""
    for name, answer in model.answers.get("unit", {}).items():
        if answer.ndim == 2:
            inside = bool(((answer >= 0) & (answer <= 1)).all())
            why = f"tried: output {name} has values {'in' if inside else 'beyond'} 0 ... 1"
            yield Line("heads.0.activation", "none" if inside else "sigmoid", Sure.likely, why)


def _wd_picture(model: Model, file: str) -> Iterable[Line]:
    picture = model.picture
    if picture is None or picture.layout != "nhwc":
        return []
    return _picture_lines(model, WD_PICTURE, f"{file}: a WD tagger takes BGR, 0 ... 255, on white")


def _picture_lines(model: Model, values: Mapping[str, Any], why: str) -> list[Line]:
    picture = model.picture
    at = "" if picture is None else picture.path
    return [Line(f"{at}.{name}", value, Sure.likely, why) for name, value in values.items()] if at else []


def _by_number(names: Any) -> list[str]:
    keys = sorted(names, key=int)
    if [int(key) for key in keys] != list(range(len(keys))):
        raise ValueError("numbers are missing")
    return keys

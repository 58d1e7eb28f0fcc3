"""Recognises models of one vector a picture by shape, values and name: classes, tags, embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.models.companions.base import Line, Model, Sure
from engines.models.companions.wd_tags import WD_PICTURE
from engines.part import Array

_IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_USUAL = {**_IMAGENET, "colours": "rgb", "fit": "crop", "resize": "bilinear", "antialias": True}
_EMBED = ("embed", "feature", "descriptor", "pooler", "projection")
_TAGS = range(9083, 10862)  # counts of tags of the WD taggers, v1.4 to v3
_UNIT = 1e-3


def look(model: Model) -> Sequence[Line]:
    """Head of a model whose only outputs are vectors, and the picture that such models usually take."""
    picture = model.picture
    vectors = {name: shape[1] for name, shape in model.shapes.items() if len(shape) == 2}
    if picture is None or not vectors or len(vectors) != len(model.shapes):
        return []
    if len(vectors) > 1 and not any(_named(name) for name in vectors):
        return []
    name = next((each for each in vectors if _named(each)), next(iter(vectors)))
    count = vectors[name]
    if not isinstance(count, int) or count < 2:
        return []
    if picture.layout == "nhwc" and count in _TAGS and picture.height == 448:
        return _tagger(picture.path, f"input [N, 448, 448, 3] and {count} outputs are a WD tagger's")
    answer = model.answer(name)
    if _named(name) or (answer is not None and len(vectors) == 1 and _unit(answer)):
        sure = Sure.likely if _named(name) else Sure.guess
        why = f"output {name} [N, {count}]" + (" has length 1" if answer is not None and _unit(answer) else "")
        lines = [Line("heads.0.kind", "embed", sure, why)]
    else:
        lines = _classifier(name, count, answer)
    usual = "usual for such networks; see where the model is from"
    if picture.height is None:
        lines.append(Line(f"{picture.path}.size", [224, 224], Sure.guess, "the graph leaves it free; 224 is usual"))
    return lines + [Line(f"{picture.path}.{key}", value, Sure.guess, usual) for key, value in _usual(model).items()]


def _classifier(name: str, count: int, answer: Array | None) -> list[Line]:
    why = f"output {name} [N, {count}] alone"
    lines = [Line("heads.0.kind", "classify", Sure.likely, why)]
    if answer is None:
        return lines
    if np.all(answer >= 0) and np.allclose(answer.sum(-1), 1, atol=1e-3):
        lines.append(Line("heads.0.activation", "none", Sure.certain, f"output {name} sums to 1: it has its softmax"))
    elif np.all((answer >= 0) & (answer <= 1)):
        why = f"{why}, each in 0 ... 1, sum {answer.sum():.3g}: scores of their own"
        return [Line("heads.0.kind", "classify", Sure.guess, why), Line("heads.0.activation", "none", Sure.likely, why)]
    else:
        lines.append(Line("heads.0.activation", "softmax", Sure.likely, f"output {name} has values beyond 0 ... 1"))
    return lines


def _usual(model: Model) -> dict[str, Any]:
    """Values that most such networks take; where the graph begins with arithmetic, bytes."""
    if model.first and model.first[0] in ("Sub", "Div", "Mul", "Add"):
        return {**_USUAL, "scale": 1.0, "mean": 0.0, "std": 1.0}
    return _USUAL


def _tagger(at: str, why: str) -> list[Line]:
    return [
        Line("heads.0.kind", "raw", Sure.guess, f"{why}, but selected_tags.csv is not beside it"),
        *(Line(f"{at}.{field}", value, Sure.likely, "what a WD tagger takes") for field, value in WD_PICTURE.items()),
    ]


def _named(name: str) -> bool:
    return any(word in name.lower() for word in _EMBED)


def _unit(answer: Array) -> bool:
    return bool(np.allclose(np.linalg.norm(np.asarray(answer, np.float64), axis=-1), 1, atol=_UNIT))

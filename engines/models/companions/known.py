"""Recognises families by the names of their files, where neither file nor graph says how the input is made."""

import re
from collections.abc import Sequence
from typing import Any

from engines.models.companions.base import Line, Model, Sure

_CLIP = {
    "colours": "rgb",
    "scale": 1 / 255,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "fit": "crop",
    "resize": "bicubic",
    "antialias": True,
}
_LITE = r"efficientnet.?lite"
_AROUND = 32  # pixels more on the short side than are cropped, CROP_PADDING of its preprocessing.py
_HALF = {"colours": "rgb", "scale": 1 / 255, "mean": 0.5, "std": 0.5}
# pattern of the file's name: (how the picture is made, where that is written)
_KNOWN: dict[str, tuple[dict[str, Any], str]] = {
    _LITE: (
        {
            "colours": "rgb",
            "scale": 1.0,
            "mean": 127.0,
            "std": 128.0,
            "fit": "crop",
            "resize": "bicubic",
            "antialias": False,
        },
        "github.com/tensorflow/tpu, efficientnet/lite",
    ),
    r"siglip": ({**_HALF, "fit": "stretch", "resize": "bicubic", "antialias": True}, "google-research/big_vision"),
    r"mobileclip": ({"colours": "rgb", "scale": 1 / 255, "fit": "crop", "resize": "bilinear"}, "apple/ml-mobileclip"),
    r"clip": (_CLIP, "openai/CLIP"),
    r"arcface|w600k|glint": ({**_HALF, "colours": "rgb"}, "deepinsight/insightface"),
    r"open.?nsfw": ({"colours": "bgr", "scale": 1.0, "mean": [104.0, 117.0, 123.0]}, "yahoo/open_nsfw"),
    r"deepdanbooru": ({"colours": "rgb", "scale": 1 / 255, "fit": "letterbox"}, "KichangKim/DeepDanbooru"),
}


def look(model: Model) -> Sequence[Line]:
    """How the picture is made."""
    picture = model.picture
    if picture is None:
        return []
    for pattern, (values, source) in _KNOWN.items():
        if re.search(pattern, model.path.stem.lower()):
            why = f"known by the file's name: {source}"
            if pattern == _LITE and picture.height is not None and picture.height == picture.width:
                values = {**values, "short_side": picture.height + _AROUND}
            return [Line(f"{picture.path}.{name}", value, Sure.likely, why) for name, value in values.items()]
    return []

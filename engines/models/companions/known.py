"""Families known by the name of their file, where neither file nor graph says how they are fed."""

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
# networks of pictures that are fed in tiles: the context that they need, which is exact for the first two and a
# convention for the others, whose radius is hundreds of pixels
_TILED: dict[str, tuple[int, str]] = {
    r"animevideov?3": (18, "its 18 convolutions of 3 x 3 see so far: tiles are equal to the whole frame"),
    r"general.?(wdn.?)?x4v3": (34, "its 34 convolutions of 3 x 3 see so far: tiles are equal to the whole frame"),
    r"real.?esr(gan|net)": (32, "usual for RRDB networks; pixels near seams differ from the whole frame's"),
}
_TILE = [256, 256]
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
    r"gfpgan|gpen|codeformer|restoreformer": (_HALF, "TencentARC/GFPGAN"),
    r"arcface|w600k|glint": ({**_HALF, "colours": "rgb"}, "deepinsight/insightface"),
    r"open.?nsfw": ({"colours": "bgr", "scale": 1.0, "mean": [104.0, 117.0, 123.0]}, "yahoo/open_nsfw"),
    r"deepdanbooru": ({"colours": "rgb", "scale": 1 / 255, "fit": "letterbox"}, "KichangKim/DeepDanbooru"),
}


def look(model: Model) -> Sequence[Line]:
    """How the picture is made, or cut."""
    picture = model.picture
    if picture is None:
        return []
    if picture.height is None and picture.width is None:
        for pattern, (overlap, why) in _TILED.items():
            if re.search(pattern, model.path.stem.lower()):
                values = {"tile": _TILE, "overlap": overlap}
                return [Line(f"{picture.path}.{name}", value, Sure.likely, why) for name, value in values.items()]
    for pattern, (values, source) in _KNOWN.items():
        if re.search(pattern, model.path.stem.lower()):
            why = f"known by the file's name: {source}"
            if pattern == _LITE and picture.height is not None and picture.height == picture.width:
                values = {**values, "short_side": picture.height + _AROUND}
            return [Line(f"{picture.path}.{name}", value, Sure.likely, why) for name, value in values.items()]
    return []

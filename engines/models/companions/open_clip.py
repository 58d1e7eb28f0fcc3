"""open_clip's preprocess_cfg.json, which Immich's models have: how a picture becomes the input."""

from collections.abc import Sequence

from engines.models.companions.base import Line, Model, Sure, json_of

_FITS = {"shortest": "crop", "squash": "stretch", "longest": "letterbox"}


def look(model: Model) -> Sequence[Line]:
    """Size, fit, filter, mean and std; open_clip resizes by Pillow."""
    path = next(model.beside("preprocess_cfg.json"), None)
    if path is None or (picture := model.picture) is None:
        return []
    fields = json_of(path)
    size = fields.get("size")
    values = {
        "size": [size, size] if isinstance(size, int) else size,
        "fit": _FITS.get(fields.get("resize_mode", "shortest"), "crop"),
        "pad_value": fields.get("fill_color") if fields.get("resize_mode") == "longest" else None,
        "resize": fields.get("interpolation", "bicubic"),
        "antialias": True,
        "colours": "rgb",
        "scale": 1 / 255,
        "mean": fields.get("mean"),
        "std": fields.get("std"),
    }
    if picture.height is not None:
        del values["size"]  # the graph's own
    return [
        Line(f"{picture.path}.{field}", value, Sure.certain, path.name)
        for field, value in values.items()
        if value is not None
    ]

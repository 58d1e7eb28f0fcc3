"""What people have beside or inside a model, read into lines of a model card; one file for each kind."""

from collections.abc import Mapping
from importlib import import_module

from engines.models.companions.base import Companion

# Where two lines are equally sure, the first stays: files before the graph, the graph before names.
COMPANIONS: Mapping[str, str] = {
    "ultralytics": "ultralytics:look",
    "openvino": "openvino:look",
    "triton": "triton:look",
    "preprocessor_config.json": "hugging_face:preprocessor",
    "config.json": "hugging_face:config",
    "selected_tags.csv": "wd_tags:selected_tags",
    "tag_mapping.json": "wd_tags:tag_mapping",
    "timm": "timm:look",
    "labels.txt": "labels:look",
    "columns before rows": "detectors:columns_first",
    "inputs": "inputs:look",
    "silero": "inputs:silero",
    "yolo": "yolo:rows",
    "nanodet": "yolo:strides",
    "detectors": "detectors:look",
    "name": "known:look",
    "pictures": "pictures:look",
    "vectors": "vectors:look",
}


def load(name: str) -> Companion:
    """The companion of this name."""
    module, _, function = COMPANIONS[name].partition(":")
    found: Companion = getattr(import_module(f"{__name__}.{module}"), function)
    return found

"""Reads files beside a model, and metadata inside it, into lines of a model card; one module for each kind."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from engines.models.companions.base import Companion, Line, Model
from schemas.errors import ModelError, RigflowError, format_error

# Of two lines that are equally certain the first is used: files before the graph, the graph before names.
COMPANIONS: Mapping[str, str] = {
    "ultralytics": "ultralytics:look",
    "openvino": "openvino:look",
    "triton": "triton:look",
    "preprocessor_config.json": "hugging_face:preprocessor",
    "config.json": "hugging_face:config",
    "preprocess_cfg.json": "open_clip:look",
    "text": "text:look",
    "selected_tags.csv": "wd_tags:selected_tags",
    "tag_mapping.json": "wd_tags:tag_mapping",
    "tags.txt": "wd_tags:tag_list",
    "timm": "timm:look",
    "labels.txt": "labels:look",
    "PP-OCR": "paddle_ocr:look",
    "columns before rows": "detectors:columns_first",
    "inputs": "inputs:look",
    "silero": "inputs:silero",
    "speech": "speech:look",
    "listening": "listening:look",
    "yolo": "yolo:rows",
    "nanodet": "yolo:strides",
    "detectors": "detectors:look",
    "name": "known:look",
    "pictures": "pictures:look",
    "vectors": "vectors:look",
}


def lines_of(name: str, model: Model) -> Sequence[Line]:
    """Return the lines of the companion of this name. Raises ModelError.

    A file of the right syntax may contain anything, for which a companion may raise any error: all become ModelError.
    """
    module, _, function = COMPANIONS[name].partition(":")
    companion: Companion = getattr(import_module(f"{__name__}.{module}"), function)
    try:
        return companion(model)
    except RigflowError:
        raise
    except Exception as error:
        what = f"the {name} data inside or beside {model.path} has an unknown form ({format_error(error)})"
        raise ModelError(what, "correct it, or move it away from the model") from error

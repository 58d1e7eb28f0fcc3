"""Recognises detectors other than YOLO by their outputs: faces, SSD, DETR, and detectors with suppression inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.models.companions.base import Line, Model, Sure

# https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, ultra_light/detect_imgs_onnx.py
_ULTRAFACE = {"colours": "rgb", "scale": 1.0, "mean": 127.0, "std": 128.0, "fit": "stretch", "resize": "bilinear"}
# https://github.com/biubug6/Pytorch_Retinaface, detect.py
_RETINAFACE = {"colours": "bgr", "scale": 1.0, "mean": [104.0, 117.0, 123.0], "resize": "bilinear"}
# https://github.com/timesler/facenet-pytorch, models/utils/detect_face.py
_MTCNN = {"colours": "rgb", "scale": 1.0, "mean": 127.5, "std": 128.0, "fit": "stretch", "resize": "area"}
# https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet
_YUNET = {"colours": "bgr", "scale": 1.0, "fit": "letterbox", "pad_place": "corner", "resize": "bilinear"}
# https://github.com/deepinsight/insightface/tree/master/detection/scrfd, tools/scrfd.py
_SCRFD = {
    "colours": "rgb",
    "scale": 1.0,
    "mean": 127.5,
    "std": 128.0,
    "fit": "letterbox",
    "pad_value": 0,
    "pad_place": "corner",
    "resize": "bilinear",
}
_TORCHVISION = {"colours": "rgb", "scale": 1 / 255, "fit": "stretch", "resize": "bilinear"}
# https://github.com/facebookresearch/detr, and RF-DETR after it
_DETR = {
    "colours": "rgb",
    "scale": 1 / 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "fit": "stretch",
    "resize": "bilinear",
    "antialias": True,
}
_FACE = {"labels": ["face"]}
_POINTS = {"points": 5, **_FACE}  # eyes, nose, corners of the mouth
_YUNET_NAMES = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
# outputs of detectors with suppression inside: names of boxes, scores, classes and count, and options of the decoder
_TENSORFLOW = {"order": ["y1", "x1", "y2", "x2"], "normalised": True, "first_class": 1}
_ARRAYS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("detection_boxes", "detection_scores", "detection_classes", "num_detections", _TENSORFLOW),
    ("det_boxes", "det_scores", "det_classes", "num_dets", {}),
    ("boxes", "scores", "labels", "", {}),
    ("bboxes", "scores", "labels", "", {}),
    ("dets", "", "labels", "", {}),
)


@dataclass(frozen=True)
class Family:
    """A decoder with its options, and the picture that the family takes."""

    decoder: str
    sure: Sure
    why: str
    picture: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "detect"


def look(model: Model) -> Sequence[Line]:
    """Decoder with its options, and the picture that the family takes."""
    picture = model.picture
    found = None if picture is None else next((each for make in _FAMILIES if (each := make(model))), None)
    if picture is None or found is None:
        return []
    usual = f"what {found.decoder} takes"
    return [
        Line("heads.0.kind", found.kind, found.sure, found.why),
        Line("heads.0.decoder", found.decoder, found.sure, found.why),
        *(Line(f"heads.0.{name}", value, found.sure, found.why) for name, value in found.options.items()),
        *(Line(f"{picture.path}.{name}", value, Sure.likely, usual) for name, value in found.picture.items()),
    ]


def _yunet(model: Model) -> Family | None:
    if {port.name for port in model.outputs} >= _YUNET_NAMES:
        return Family("yunet", Sure.certain, "outputs cls_8 ... kps_32", _YUNET, _POINTS, kind="keypoints")
    return None


def _scrfd(model: Model) -> Family | None:
    lasts, counts = _lasts(model), {shape[-2] for shape in model.shapes.values() if len(shape) > 1}
    if lasts not in (Counter({1: 3, 4: 3, 10: 3}), Counter({1: 3, 4: 3})) or len(counts) != 3:
        return None
    why = "scores [n, 1], boxes [n, 4] for each of three strides"
    if not lasts[10]:
        return Family("scrfd", Sure.certain, why, _SCRFD, _FACE)
    return Family("scrfd", Sure.certain, f"{why}, points [n, 10]", _SCRFD, _POINTS, kind="keypoints")


def _retinaface(model: Model) -> Family | None:
    if _lasts(model) != Counter({4: 1, 2: 1, 10: 1}) or not _of_equal_rows(model):
        return None
    why = "boxes [n, 4], scores [n, 2], landmarks [n, 10]"
    return Family("retinaface", Sure.certain, why, _RETINAFACE, _POINTS, kind="keypoints")


def _mtcnn(model: Model) -> Family | None:
    """P-Net gives maps, R-Net and O-Net vectors of one candidate each, O-Net with points."""
    ranks = {len(shape) for shape in model.shapes.values()}
    lasts = _lasts(model)
    if lasts not in (Counter({4: 1, 2: 1}), Counter({4: 1, 2: 1, 10: 1})) or ranks not in ({2}, {4}):
        return None
    why = "boxes [..., 4] and scores [..., 2]" + (", points [N, 10]" if lasts[10] else "")
    picture, of_map = dict(_MTCNN), {}
    if model.picture is not None and model.picture.layout == "nhwc":  # Keras' port of the weights, which are Matlab's
        picture["layout"], of_map = "nwhc", {"transposed": True} if ranks == {4} else {}
    if lasts[10]:
        return Family("mtcnn", Sure.likely, why, picture, _POINTS, kind="keypoints")
    return Family("mtcnn", Sure.likely, why, picture, {**_FACE, **of_map})


def columns_first(model: Model) -> Sequence[Line]:
    """The layout of a family whose pictures have columns before rows, which no shape shows."""
    return [line for line in look(model) if line.field.endswith(".layout")]


def _arrays(model: Model) -> Family | None:
    outputs = {port.name: len(port.shape) for port in model.outputs}
    for boxes, scores, classes, count, options in _ARRAYS:
        if not outputs.keys() >= {boxes, scores or boxes, classes}:
            continue
        if outputs[classes] == 3 or (not scores and model.shapes[boxes][-1] == 4):  # a score for each class
            continue
        given = {"boxes": boxes, "scores": scores, "class_output": classes, "count": count if count in outputs else ""}
        options = {**options, **({"normalised": True} if _normalised(model, boxes) else {})}
        why = f"outputs {', '.join(sorted(name for name in given.values() if name))}"
        named = {name: value for name, value in given.items() if value}
        return Family("arrays", Sure.likely, why, _TORCHVISION, {**named, **options})
    return None


def _ssd(model: Model) -> Family | None:
    """Scores of classes with the background first, and boxes: two classes are those of UltraFace."""
    outputs = [(name, shape) for name, shape in model.shapes.items() if len(shape) == 3]
    four = [name for name, shape in outputs if shape[-1] == 4]
    if len(model.shapes) != 2 or len(outputs) != 2 or len(four) != 1 or not _of_equal_rows(model):
        return None
    scores, shape = next(each for each in outputs if each[0] != four[0])
    answer = model.answer(scores)
    if not isinstance(shape[-1], int) or answer is None or not np.allclose(answer.sum(-1), 1, atol=1e-3):
        return None
    why = f"scores [N, n, {shape[-1]}] that sum to 1, and boxes [N, n, 4]"
    if shape[-1] == 2:
        return Family("ultraface", Sure.likely, why, _ULTRAFACE, _FACE)
    return Family("ssd", Sure.likely, why, _ULTRAFACE)  # both are from code of the same author


def _detr(model: Model) -> Family | None:
    names = {port.name for port in model.outputs}
    if not any(names == each for each in ({"dets", "labels"}, {"pred_boxes", "logits"}, {"pred_boxes", "pred_logits"})):
        return None
    boxes = next(iter(names & {"dets", "pred_boxes"}))
    options = {"boxes": boxes, "scores": next(iter(names - {boxes}))}
    return Family("detr", Sure.certain, f"outputs {', '.join(sorted(names))}", _DETR, options)


_FAMILIES = (_yunet, _scrfd, _retinaface, _mtcnn, _arrays, _detr, _ssd)


def _lasts(model: Model) -> Counter[Any]:
    return Counter(shape[-1] for shape in model.shapes.values() if shape)


def _of_equal_rows(model: Model) -> bool:
    """Whether all outputs are `[N, n, ...]` with one n."""
    shapes = list(model.shapes.values())
    return all(len(shape) == 3 for shape in shapes) and len({shape[1] for shape in shapes}) == 1


def _normalised(model: Model, boxes: str) -> bool:
    """Whether boxes are shares of the picture's sides; some boxes must have been found for that."""
    answer = model.answer(boxes)
    return answer is not None and bool(answer.size) and 0 < float(np.abs(answer).max()) <= 2

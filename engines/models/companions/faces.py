"""Detectors of faces, and those of fixed boxes: UltraFace, RetinaFace, YuNet, SCRFD, SSD, DETR; by names and shapes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from engines.models.companions.base import Line, Model, Sure

# https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, ultra_light/detect_imgs_onnx.py
_ULTRAFACE = {"colours": "rgb", "scale": 1.0, "mean": 127.0, "std": 128.0, "fit": "stretch", "resize": "bilinear"}
# https://github.com/biubug6/Pytorch_Retinaface, detect.py
_RETINAFACE = {"colours": "bgr", "scale": 1.0, "mean": [104.0, 117.0, 123.0], "resize": "bilinear"}
# https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet
_YUNET = {"colours": "bgr", "scale": 1.0, "resize": "bilinear"}
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
_SSD_NAMES = ({"boxes", "scores", "labels"}, {"bboxes", "scores", "labels"}, {"detection_boxes", "detection_scores"})
_YUNET_NAMES = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}


def look(model: Model) -> Sequence[Line]:
    """Decoder, and the picture that the family takes."""
    picture = model.picture
    if picture is None:
        return []
    decoder, sure, why, values = _family(model)
    if not decoder:
        return []
    kind = "keypoints" if decoder in ("yunet", "scrfd", "retinaface") else "detect"
    return [
        Line("heads.0.kind", kind, sure, why),
        Line("heads.0.decoder", decoder, sure, why),
        *(
            Line(f"{picture.path}.{name}", value, Sure.likely, f"what {decoder} takes")
            for name, value in values.items()
        ),
    ]


def _family(model: Model) -> tuple[str, Sure, str, Mapping[str, Any]]:
    names = {port.name for port in model.outputs}
    if names >= _YUNET_NAMES:
        return "yunet", Sure.certain, "outputs cls_8 ... kps_32", _YUNET
    lasts = Counter(shape[-1] for shape in model.shapes.values() if shape)
    counts = {shape[-2] for shape in model.shapes.values() if len(shape) > 1}
    if lasts in (Counter({1: 3, 4: 3, 10: 3}), Counter({1: 3, 4: 3})) and len(counts) == 3:
        return "scrfd", Sure.certain, "scores [n, 1], boxes [n, 4] for each of three strides", _SCRFD
    ranks = {len(shape) for shape in model.shapes.values()}
    if lasts == Counter({4: 1, 2: 1, 10: 1}) and len(counts) == 1 and ranks == {3}:
        return "retinaface", Sure.certain, "boxes [n, 4], scores [n, 2], landmarks [n, 10]", _RETINAFACE
    if lasts == Counter({4: 1, 2: 1}) and len(counts) == 1 and ranks == {3}:
        return "ultraface", Sure.likely, "scores [N, n, 2] and boxes [N, n, 4]", _ULTRAFACE
    if names >= {"dets", "labels"} or names >= {"pred_boxes", "logits"} or names >= {"pred_boxes", "pred_logits"}:
        return "detr", Sure.certain, f"outputs {', '.join(sorted(names))}", _DETR
    if any(names >= each for each in _SSD_NAMES):
        return "ssd", Sure.likely, f"outputs {', '.join(sorted(names))}", _TORCHVISION
    return "", Sure.guess, "", {}

"""ultraface: Ultra-Light-Fast-Generic-Face-Detector-1MB, an `ssd` with one class, face.

Source: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, run_video_face_detect_onnx.py.
"""

from engines.heads.base import Share
from engines.heads.decoders.ssd import Ssd, SsdOptions


class UltraFaceOptions(SsdOptions):
    """The options of `ssd`, with other defaults."""

    threshold: Share = 0.7
    nms: Share = 0.3


class UltraFace(Ssd):
    """See the module."""

    Options = UltraFaceOptions

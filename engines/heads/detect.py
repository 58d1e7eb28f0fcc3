"""detect: boxes with a class and a score each, in pixels of the source."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.heads.boxes import Detector
from engines.heads.view import View
from engines.part import Value
from engines.planned import Tensor
from schemas.picture import PictureSpec


class Detect(Detector):
    """Options: `decoder` names a file of `engines.heads.decoders`; the others are `BoxOptions` and the decoder's own.

    Gives `boxes [M, 4]` of x1, y1, x2, y2 float32, clipped to the source, `scores [M]` float32 and `classes [M]` int32
    for each row, by falling score.
    """

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Tensor], picture: PictureSpec | None) -> None:
        super().__init__(options, outputs, "detect")

    def decode(self, outputs: Mapping[str, Value], views: Sequence[View]) -> dict[str, Value]:
        """See the class."""
        return self.find(outputs, views).arrays()

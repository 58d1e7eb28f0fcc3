"""resize: frames -> pictures of bytes, at the pipeline's size and in its layout."""

from collections.abc import Mapping, Sequence

from engines.operators.base import BaseOperator
from engines.part import Part, Tick
from engines.planned import Arrays, planned_pictures
from engines.ports import Session
from schemas.errors import RigflowError
from schemas.picture import PictureSpec


class Resize(BaseOperator[PictureSpec]):
    """Its picture is made by decode, or of raw frames by another worker; `options` are those of PictureSpec.

    `rgb`: `pixels [F, H, W, 3]`; `gray`: `pixels [F, H, W]`; `planes`: the unchanged planes of the frame,
    `plane0 [F, H, W]`, `plane1 [F, H', W']` ...
    """

    options_class = PictureSpec

    @property
    def by_source(self) -> bool:
        """Whether its picture has the size of the frame."""
        return self._options.size == "source"

    def pictures(self, inputs: Arrays) -> Mapping[str, PictureSpec]:
        """Return `pixels`, or `plane` for all planes."""
        return {"plane" if self._options.layout == "planes" else "pixels": self._options}

    def plan(self, inputs: Arrays) -> Arrays:
        """Return the arrays of its picture, and all earlier ones."""
        return {**inputs, **planned_pictures(self.pictures(inputs))}

    def run(self, parts: Sequence[Part], session: Session | None, tick: Tick) -> list[Part | RigflowError]:
        """Return the parts unchanged: decode made the pictures."""
        return list(parts)

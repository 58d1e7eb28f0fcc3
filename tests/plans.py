"""What decode makes of frames in a pipeline, without its models."""

import json
from typing import Any

from engines.operators.resize import Resize
from engines.pictures import HostPictures
from engines.planned import DecodePlan
from schemas.picture import PictureSpec
from schemas.pipeline import OperatorStage, PipelineSpec


def pictures(**options: Any) -> dict[str, PictureSpec]:
    """What a resize stage with these options wants of each frame."""
    return dict(
        Resize(OperatorStage.model_validate({"kind": "resize", **json.loads(json.dumps(options))}), None).pictures({})
    )


def decode_plan(spec: PipelineSpec) -> DecodePlan:
    """The pictures of the resize stages alone."""
    pictures: dict[str, PictureSpec] = {}
    for stage in spec.operators:
        if stage.kind == "resize":
            pictures |= Resize(stage, None).pictures({})
    by_source = any(picture.size == "source" for picture in pictures.values())
    return DecodePlan(spec.decode, spec.media, spec.grid, pictures, {}, by_source)


def converter(spec: PipelineSpec) -> HostPictures:
    """Makes those pictures of single frames."""
    return HostPictures(decode_plan(spec).pictures)

"""From an encode stage to its format. Each format is a module of its own."""

from collections.abc import Callable, Mapping

from engines.media.tracks import SoundChoice
from engines.outputs.annotated import AnnotatedFormat
from engines.outputs.base import Labels
from engines.outputs.detections import DetectionsFormat
from engines.outputs.embeddings import EmbeddingsFormat
from engines.outputs.image import ImageFormat
from engines.outputs.jsonl import JsonlFormat
from engines.outputs.npz import NpzFormat
from engines.outputs.shots import ShotsFormat
from engines.outputs.tags import TagsFormat
from engines.outputs.video import VideoFormat
from engines.ports import Format, PictureEncoder
from schemas.pipeline import EncodeStage

_FORMATS: Mapping[str, Callable[[EncodeStage, Labels | None, PictureEncoder | None], Format]] = {
    "npz": NpzFormat,
    "jsonl": JsonlFormat,
    "detections": DetectionsFormat,
    "tags": TagsFormat,
    "embeddings": EmbeddingsFormat,
    "shots": ShotsFormat,
    "video": VideoFormat,
    "image": ImageFormat,
    "annotated": AnnotatedFormat,
}


def load_format(stage: EncodeStage, encoder: PictureEncoder | None = None, labels: Labels | None = None) -> Format:
    """The format of an encode stage; video by `encoder`, or else by x264. It takes parts whose arrays are on the host.

    `labels`: what the values of arrays stand for. Video takes arrays wherever they are. Raises PipelineError for
    options that the format does not have.
    """
    return _FORMATS[stage.format](stage, labels, encoder)


def sound_of(stage: EncodeStage) -> SoundChoice | None:
    """What becomes of a media's sound; None where the format has no place for what is beside the picture.

    Raises PipelineError for options that the format does not have.
    """
    return load_format(stage).sound

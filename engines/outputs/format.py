"""From an encode stage to its format. Each format is a module of its own."""

from collections.abc import Callable

from engines.media.tracks import SoundChoice
from engines.outputs.base import parse_options
from engines.outputs.jsonl import JsonlFormat
from engines.outputs.npz import NpzFormat
from engines.outputs.shots import ShotsFormat
from engines.outputs.video import VideoFormat
from engines.ports import Format, PictureEncoder, VideoOptions
from schemas.pipeline import EncodeStage

_FORMATS: dict[str, Callable[[EncodeStage], Format]] = {
    "npz": NpzFormat,
    "jsonl": JsonlFormat,
    "shots": ShotsFormat,
}


def load_format(stage: EncodeStage, encoder: PictureEncoder | None = None) -> Format:
    """The format of an encode stage; video by `encoder`, or else by x264. It takes parts whose arrays are on the host.

    Video takes them wherever they are. Raises PipelineError for options that the format does not have.
    """
    if stage.format == "video":
        return VideoFormat(stage, encoder)
    return _FORMATS[stage.format](stage)


def sound_of(stage: EncodeStage) -> SoundChoice | None:
    """What becomes of a media's sound; None where the format has no place for what is beside the picture.

    Raises PipelineError for options that the format does not have.
    """
    return parse_options(VideoOptions, stage).sound if stage.format == "video" else None

"""From an encode stage to its format. Each format is a module of its own, found by name in `engines.registry`."""

from engines.media.tracks import SoundChoice
from engines.outputs.base import Labels
from engines.ports import Format, PictureEncoder
from engines.registry import load
from schemas.pipeline import EncodeStage


def load_format(stage: EncodeStage, encoder: PictureEncoder | None = None, labels: Labels | None = None) -> Format:
    """The format of an encode stage; pictures are encoded by `encoder`, or else by x264.

    `labels`: what the values of arrays stand for. Raises PipelineError for a format that is not there, and for options
    that it does not have.
    """
    made: Format = load("formats", stage.format)(stage, labels, encoder)
    return made


def sound_of(stage: EncodeStage) -> SoundChoice | None:
    """What becomes of a media's sound; None where the format has no place for what is beside the picture.

    Raises PipelineError for options that the format does not have.
    """
    return load_format(stage).sound

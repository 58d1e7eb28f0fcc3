"""Loads the format of an encode stage. Each format is a module, found by name in `engines.registry`."""

from engines.encoding import Format, PictureEncoder
from engines.media.tracks import SoundChoice
from engines.outputs.base import Labels
from engines.registry import load
from schemas.pipeline import EncodeStage


def load_format(stage: EncodeStage, encoder: PictureEncoder | None = None, labels: Labels | None = None) -> Format:
    """Load the format of an encode stage; `encoder` encodes the pictures, by default x264.

    `labels`: the meaning of the values of arrays. Raises PipelineError for an unknown format, and for unknown options.
    """
    made: Format = load("formats", stage.format)(stage, labels, encoder)
    return made


def sound_of(stage: EncodeStage) -> SoundChoice | None:
    """Return how a media's sound is written; None if the format cannot hold tracks beside the picture.

    Raises PipelineError for options that the format does not have.
    """
    return load_format(stage).sound

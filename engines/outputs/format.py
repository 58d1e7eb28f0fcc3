"""From an encode stage to its format. Each format is a module of its own."""

from collections.abc import Callable

from engines.outputs.base import Assembler, Encoded, Format
from engines.outputs.jsonl import JsonlFormat
from engines.outputs.npz import NpzFormat
from engines.outputs.shots import ShotsFormat
from engines.outputs.video import VideoFormat
from schemas.pipeline import EncodeStage

__all__ = ["Assembler", "Encoded", "Format", "load_format"]

_FORMATS: dict[str, Callable[[EncodeStage], Format]] = {
    "npz": NpzFormat,
    "jsonl": JsonlFormat,
    "shots": ShotsFormat,
    "video": VideoFormat,
}


def load_format(stage: EncodeStage) -> Format:
    """The format of an encode stage. Raises PipelineError for options that it does not have."""
    return _FORMATS[stage.format](stage)

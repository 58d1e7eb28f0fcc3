"""What rigflow takes a file for."""

from engines.media.medium import Input, any_recognised
from engines.media.source import Source


def kind_of(source: Source, name: str = "") -> str:
    """The kind of media of a file, or of bytes that are called `name`."""
    return any_recognised(Input(source, name)).kind

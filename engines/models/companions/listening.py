"""What a model that writes what is said takes and gives, which `engines.models.listening` put into its metadata."""

from collections.abc import Sequence

from engines.models.companions.base import Line, Model, lines_of_metadata

METADATA = "rigflow.recogniser"


def look(model: Model) -> Sequence[Line]:
    """Return the fields of `recogniser`. Raises ModelError."""
    return lines_of_metadata(model, METADATA, "recogniser")

"""The settings of a model that speaks, which `engines.models.speech` put into its metadata when it was taken."""

from collections.abc import Sequence

from engines.models.companions.base import Line, Model, lines_of_metadata

METADATA = "rigflow.speech"


def look(model: Model) -> Sequence[Line]:
    """Return the fields of `speech`. Raises ModelError."""
    return lines_of_metadata(model, METADATA, "speech")

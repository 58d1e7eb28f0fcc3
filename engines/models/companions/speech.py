"""The settings of a model that speaks, which `engines.models.speech` put into its metadata when it was taken."""

import json
from collections.abc import Sequence

from engines.models.companions.base import Line, Model, Sure

METADATA = "rigflow.speech"


def look(model: Model) -> Sequence[Line]:
    """Return the fields of `speech`."""
    if METADATA not in model.metadata:
        return []
    fields = json.loads(model.metadata[METADATA])
    return [Line(f"speech.{name}", value, Sure.certain, "the files beside the model") for name, value in fields.items()]

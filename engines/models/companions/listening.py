"""What a model that writes what is said takes and gives, which `engines.models.listening` put into its metadata."""

import json
from collections.abc import Sequence

from engines.models.companions.base import Line, Model, Sure

METADATA = "rigflow.recogniser"


def look(model: Model) -> Sequence[Line]:
    """Return the fields of `recogniser`."""
    if METADATA not in model.metadata:
        return []
    fields = json.loads(model.metadata[METADATA])
    why = "the files beside the model"
    return [Line(f"recogniser.{name}", value, Sure.certain, why) for name, value in fields.items()]

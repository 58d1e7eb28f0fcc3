"""What `rigflow run` is to do."""

from dataclasses import dataclass
from pathlib import Path

from engines.outputs.template import OutTemplate
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.definitions import Models


@dataclass(frozen=True, slots=True)
class Task:
    """What is run, where, and where the results go. `workers` are started here. `shows_text`: the answer to a text of
    standard input goes to standard output, and to no file.
    """

    settings: Settings
    spec: PipelineSpec
    models: Models
    variant: bool
    workers: int
    priority: Priority
    out: Path
    overwrite: bool
    only_new: bool
    template: OutTemplate | None = None
    shows_text: bool = True

"""What `rigflow run` is to do."""

from dataclasses import dataclass
from pathlib import Path

from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.definitions import Models


@dataclass(frozen=True, slots=True)
class Task:
    """What is run, where, and where the results go. `workers` are started here."""

    settings: Settings
    spec: PipelineSpec
    models: Models
    variant: bool
    workers: int
    priority: Priority
    out: Path
    overwrite: bool
    only_new: bool

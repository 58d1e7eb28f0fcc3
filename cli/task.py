"""What `rigflow run` is to do."""

from dataclasses import dataclass
from pathlib import Path

from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from workers.definitions import Models


@dataclass(frozen=True, slots=True)
class Task:
    """What is run, where, and where the results go: in the current folder without `out`. `workers` are started here."""

    settings: Settings
    spec: PipelineSpec
    models: Models
    variant: bool
    workers: int
    priority: Priority
    out: Path | None
    overwrite: bool
    only_new: bool

    @property
    def folder(self) -> Path:
        """The folder for the results."""
        return self.out or Path(".")

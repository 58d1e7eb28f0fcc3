"""What a worker process is told when it starts."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from schemas.settings import Settings

ALL_STAGES = ("all",)  # of every pipeline, operators of installed packages too


class WorkerOptions(BaseModel):
    """Options of a worker process.

    `rig` and `device` are for its status. `scratch` is its folder for temporary files. `quarantine`: the models that it
    must not load, by sha256, and why. `load_alone`: it loads one model at a time and takes no work meanwhile, to find
    one that ends processes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: Settings
    stages: tuple[str, ...] = ALL_STAGES  # kinds or names
    name: str = ""
    rig: str = ""
    device: str = "cpu"
    scratch: str = ""
    quarantine: Mapping[str, str] = {}
    load_alone: bool = False

    def hosts(self, *names: str) -> bool:
        """Whether the worker runs a stage of one of these kinds or names."""
        return self.stages == ALL_STAGES or not set(names).isdisjoint(self.stages)

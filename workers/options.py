"""The options that a worker process gets when it starts."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from schemas.rig import ALL_STAGES, runs_stage
from schemas.settings import Settings


class WorkerOptions(BaseModel):
    """Options of a worker process.

    `auto`: of these stages it does what the fleet's placement gives its device. `rig` and `device` are shown in its
    status. `scratch` is its folder for temporary files. `quarantine`: the models
    that it must not load, by sha256, and why. `load_alone`: it loads one model at a time and takes no work
    meanwhile, to find the one that crashes processes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: Settings
    stages: tuple[str, ...] = ALL_STAGES  # kinds or names
    name: str = ""
    auto: bool = False
    rig: str = ""
    device: str = "cpu"
    scratch: str = ""
    quarantine: Mapping[str, str] = {}
    load_alone: bool = False

    def hosts(self, *names: str) -> bool:
        """Whether the worker runs a stage of one of these kinds or names."""
        return runs_stage(self.stages, *names)

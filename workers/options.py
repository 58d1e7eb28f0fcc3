"""The options that a worker process gets when it starts."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from schemas.rig import ALL_STAGES, runs_stage
from schemas.settings import Settings


class WorkerOptions(BaseModel):
    """Options of a worker process.

    `auto`: of these stages it does what the fleet's placement gives its device. `rig` and `device` are shown in its
    status. `scratch` is its folder for temporary files. `quarantine`: the models
    that it must not load, by sha256, and why. `load_alone`: it loads one model at a time and takes no work
    meanwhile, to find the one that crashes processes. `gpu_peers`: other workers of the rig that use the same GPU.
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
    gpu_peers: int = 0

    def hosts(self, *names: str) -> bool:
        """Whether the worker runs a stage of one of these kinds or names."""
        return runs_stage(self.stages, *names)


def with_gpu_peers(workers: Sequence[WorkerOptions]) -> list[WorkerOptions]:
    """The workers of a rig, each with the number of those that share its GPU."""
    on = Counter(each.device for each in workers if each.device != "cpu")
    return [each.model_copy(update={"gpu_peers": max(0, on[each.device] - 1)}) for each in workers]

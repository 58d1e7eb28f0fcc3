"""The file of a rig: the workers of a machine, and the stages of each."""

import re
from collections.abc import Collection
from typing import Literal

from pydantic import Field, field_validator, model_validator

from schemas.declared import Name, Spec, parse_spec
from schemas.settings import DEVICE

SEE = "see docs/cli.md, rigflow rig"


AUTO = ("auto",)
ALL_STAGES = ("all",)  # of every pipeline, including operators of installed packages


def runs_stage(stages: Collection[str], *names: str) -> bool:
    """Return whether a worker with these stages, kinds or names, runs a stage of one of the `names`."""
    return "all" in stages or not set(names).isdisjoint(stages)


class WorkerGroup(Spec):
    """`count` equal workers: their device, and the kinds or names of their stages; none given means all,
    and `auto` what the fleet's placement gives them.

    `device`: `cpu`, `cuda:INDEX` or `cuda:UUID`; several workers may share a GPU. `power_watts`: the most power that
    this GPU draws while the rig runs; 0: as it is.
    """

    device: str = Field(default="cpu", pattern=DEVICE)
    count: int = Field(default=1, ge=1, le=256)
    stages: tuple[Name, ...] = ()
    power_watts: int = Field(default=0, ge=0, le=2000)

    @property
    def named(self) -> tuple[str, ...]:
        """The stages that it names; none where it does all, or what it is given."""
        return () if self.auto else self.stages

    @property
    def auto(self) -> bool:
        """Whether the placement of the fleet says what it does."""
        return self.stages == AUTO

    @field_validator("stages", mode="before")
    @classmethod
    def _auto_is_a_word(cls, value: object) -> object:
        return AUTO if value == "auto" else value

    @model_validator(mode="after")
    def _has_gpu(self) -> "WorkerGroup":
        if self.power_watts and self.device == "cpu":
            raise ValueError("power_watts is for GPUs, and this worker has none")
        return self


class RigSpec(Spec):
    """A rig's workers; `name` is its name in `status`, by default the machine's own name.

    `start_pause_s` are the seconds between the starts of two workers: many GPUs that begin to work at one moment may
    be too much for a power supply.
    """

    name: Name | Literal[""] = ""
    start_pause_s: float = Field(default=0.0, ge=0, le=600)
    worker: tuple[WorkerGroup, ...] = Field(min_length=1)


def parse_rig(text: str, source: str) -> RigSpec:
    """A rig from the text of its file; `source` names it in errors. Raises UsageError, by field."""
    return parse_spec(RigSpec, text, source, SEE)


def rig_name(host: str) -> str:
    """Return the rig's name for a machine: characters that a subject cannot contain become dashes."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", host).strip("-_")[:64] or "rig"

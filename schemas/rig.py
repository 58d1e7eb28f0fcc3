"""What a rig's file may say: which workers run on a machine, and which stages each hosts."""

import re
import tomllib
from collections.abc import Collection
from typing import Literal

from pydantic import Field, ValidationError

from schemas.errors import UsageError, format_field_error
from schemas.pipeline import Name, Spec
from schemas.settings import DEVICE

SEE = "see docs/cli.md, rigflow rig"


ALL_STAGES = ("all",)  # of every pipeline, operators of installed packages too


def runs_stage(stages: Collection[str], *names: str) -> bool:
    """Whether a worker with these stages, kinds or names, runs a stage of one of the `names`."""
    return "all" in stages or not set(names).isdisjoint(stages)


class WorkerGroup(Spec):
    """`count` equal workers: what each computes on, and the kinds or names of its stages; none given means all.

    `device`: `cpu`, `cuda:INDEX` or `cuda:UUID`; several workers may share a GPU.
    """

    device: str = Field(default="cpu", pattern=DEVICE)
    count: int = Field(default=1, ge=1, le=256)
    stages: tuple[Name, ...] = ()


class RigSpec(Spec):
    """A rig's workers; `name` is what `status` calls it, empty: the machine's own name."""

    name: Name | Literal[""] = ""
    worker: tuple[WorkerGroup, ...] = Field(min_length=1)


def parse_rig(text: str, source: str) -> RigSpec:
    """A rig from the text of its file; `source` names it in errors. Raises UsageError, by field."""
    try:
        return RigSpec.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: not TOML, {error}", SEE) from error
    except ValidationError as error:
        raise UsageError(f"{source}, {format_field_error(error.errors()[0])}", SEE) from error


def rig_name(host: str) -> str:
    """A machine's name as a rig's: what cannot be in a subject becomes a dash."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", host).strip("-_")[:64] or "rig"

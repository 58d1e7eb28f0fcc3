"""What workers and rigs say of themselves, every 2 s, in KV `rigflow_rigs`: the fields that others rely on."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.fields import Count, GivenName, Moment, Seconds


class Status(BaseModel):
    """Base of what a process says of itself; it may say more than others rely on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def fields(self) -> dict[str, Any]:
        """What it said, as plain json."""
        return self.model_dump(mode="json", exclude_unset=True)


class StageStatus(Status):
    """What a worker did for one stage; `busy` is the share of its time of late, 0 to 1."""

    pipeline: GivenName
    stage: GivenName
    frames: Count
    frames_per_s: Seconds
    busy: Seconds


class CardStatus(Status):
    """The card a worker computes on; empty for the CPU."""

    name: GivenName = ""


class WorkerStatus(Status):
    """A worker process."""

    worker: GivenName
    device: GivenName
    card: CardStatus = CardStatus()
    stages: tuple[GivenName, ...]
    state: GivenName
    at_s: Moment
    rss_bytes: Count
    in_hand: Count
    failures: Count
    done: tuple[StageStatus, ...]


class SlotStatus(Status):
    """A worker as its rig's supervisor knows it; `why` it is not ready, empty: it is."""

    worker: GivenName
    stages: tuple[GivenName, ...]
    state: GivenName
    why: str
    deaths: Count
    last_exit: GivenName


class RigStatus(Status):
    """A machine and its workers."""

    rig: GivenName
    host: GivenName
    state: GivenName
    at_s: Moment
    metrics: GivenName
    workers: tuple[SlotStatus, ...]

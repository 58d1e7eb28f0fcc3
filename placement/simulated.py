"""What a simulation is given, and what it gives: jobs, faults, and what happened."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.costs import Work
from placement.routes import Placement


@dataclass(frozen=True, slots=True)
class Submission:
    """`count` equal jobs that are published at `at_s`. Each piece of them has `parts` parts, and a worker computes up
    to `batch` parts together, from any pieces that it has. `tenant`: whose they are, where tenants share the fleet.
    """

    work: Work
    count: int = 1
    parts: int = 1
    batch: int = 1
    at_s: float = 0.0
    interactive: bool = False
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """The device or the rig `name` fails at `at_s`, and is back `seconds` later. What a device held is handed back at
    once; what a rig held waits for the end of its leases.
    """

    name: str
    at_s: float
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class JobEnd:
    """When a job was published and when it ended; infinite: never."""

    at_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Use:
    """What one resource did: the share of the entire time that it was busy, and that of the time in which there was
    work for all (`flowing`). `kind`: compute, decoder, encoder, link, link back, cores, network in, network out, or
    worker (its computing thread).
    """

    kind: str
    owner: str
    share: float
    flowing: float


@dataclass(frozen=True, slots=True)
class QueueUse:
    """The most that a queue held."""

    pipeline: str
    stage: str
    messages: int
    nbytes: float
    limit: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """What happened. `finish_s`: the end of the last job that ended; `flow_s`: until no piece waited any more.

    `pieces` are those that each device began and finished. `repeated`: parts that were computed twice, after a fault
    or because a worker was late.
    `grouped`: so many pieces were counted as one. `shares`: seconds of workers for each tenant, from the begin
    until the first of them had nothing waiting any more, at `shared_s`.
    """

    finish_s: float
    flow_s: float
    jobs: tuple[JobEnd, ...]
    uses: tuple[Use, ...]
    queues: tuple[QueueUse, ...]
    pieces: Mapping[str, int]
    repeated: int
    grouped: int
    placements: tuple[Placement, ...] = field(default=())
    shares: Mapping[str, float] = field(default_factory=dict)
    shared_s: float = math.inf

    @property
    def unfinished(self) -> int:
        """Jobs that never end: no device is left that does one of their stages."""
        return sum(job.end_s == math.inf for job in self.jobs)

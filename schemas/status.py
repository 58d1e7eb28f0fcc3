"""The status that workers and rigs write to KV `rigflow_rigs` every 2 s: the fields that readers rely on."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from schemas.fields import Count, Duration, GivenName, Moment, Seconds

Cores = Annotated[int, Field(ge=1, le=1 << 16)]
Bytes = Annotated[FiniteFloat, Field(ge=0)]  # a mean
Pace = tuple[GivenName, GivenName, Count, Duration]  # pipeline, stage, frames, and the seconds that they took


class Status(BaseModel):
    """Base of the status of a process; it may have further fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def fields(self) -> dict[str, Any]:
        """The fields that were set, as plain json."""
        return self.model_dump(mode="json", exclude_unset=True)


class StageStatus(Status):
    """The work of a worker for one stage: `frames` took `seconds`; a message takes `message_s` and has `message_bytes`,
    0 where none is measured yet. `busy` is the share of its recent time, 0 to 1.
    """

    pipeline: GivenName
    stage: GivenName
    frames: Count
    seconds: Duration = 0.0
    message_s: Duration = 0.0
    message_bytes: Bytes = 0.0
    frames_per_s: Seconds
    busy: Seconds


class StepStatus(Status):
    """The step that a worker computes now, and for how long."""

    pipeline: GivenName
    stage: GivenName
    seconds: Seconds


class GpuStatus(Status):
    """The GPU a worker computes on; empty for the CPU. `driver`: its version, None from workers that do not send it."""

    name: GivenName = ""
    uuid: GivenName = ""
    memory_bytes: Count = 0
    driver: GivenName | None = None


class RoleStatus(Status):
    """What a placement gives a worker of a pipeline: the stages that it runs, whose queues it takes from, and why."""

    runs: tuple[GivenName, ...]
    takes: tuple[GivenName, ...]
    why: GivenName = ""


class WorkerStatus(Status):
    """A worker process. `why` is the reason that it is not ready for a pipeline, or empty; `declined`: pipelines from
    which it takes no work, with the reasons; `roles`: what placements give it, by pipeline; `profile`: what its device
    was measured to do, in words; `processor`: the id of its machine's processor, which has `cores`.
    """

    worker: GivenName
    device: GivenName
    rig: GivenName = ""
    host: GivenName = ""
    cores: Cores = 1
    processor: GivenName = ""
    card: GivenName = ""
    gpu: GpuStatus = GpuStatus()
    stages: tuple[GivenName, ...]
    state: GivenName
    at_s: Moment
    rss_bytes: Count
    in_flight: Count
    failures: Count
    done: tuple[StageStatus, ...]
    step: StepStatus | None = None
    why: str = ""
    profile: GivenName = ""
    declined: dict[GivenName, str] = {}
    roles: dict[GivenName, RoleStatus] = {}


class SlotStatus(Status):
    """A worker in the supervisor's view; `why` is the reason that it is not ready, or empty; `paces`: what its
    processes have done, by pipeline and stage.
    """

    worker: GivenName
    stages: tuple[GivenName, ...]
    state: GivenName
    why: str
    deaths: Count
    last_exit: GivenName
    device: GivenName = ""
    paces: tuple[Pace, ...] = ()


class RigGpu(Status):
    """A GPU of a rig: its index at NVML, its sensors, and `xids`, the errors that its driver reported, by number."""

    gpu: GivenName
    uuid: GivenName
    name: GivenName
    temperature_celsius: FiniteFloat | None = None
    power_watts: FiniteFloat | None = None
    power_limit_watts: FiniteFloat | None = None
    fan_speed_ratio: FiniteFloat | None = None
    xids: dict[GivenName, Count] = {}


class RigEnergy(Status):
    """Energy of a rig's GPUs since its start, and `frames` and `device-seconds` by kWh of the last ten minutes."""

    joules: Seconds
    per_kwh: dict[GivenName, Seconds] = {}


class RigStatus(Status):
    """A machine and its workers. `since_s`: when a rig that is `stopped` or `lost` ended; 0 while it runs.

    `gpus`, `energy` and `troubles` are there where NVML is: its sensors, energy and work by kWh, and what a
    person should see to.
    """

    rig: GivenName
    host: GivenName
    state: GivenName
    at_s: Moment
    metrics: GivenName
    workers: tuple[SlotStatus, ...]
    since_s: Moment = 0.0
    gpus: tuple[RigGpu, ...] = ()
    energy: RigEnergy | None = None
    troubles: tuple[str, ...] = ()

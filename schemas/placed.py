"""The placement of a pipeline on a fleet, as rigs agree on it in the bucket of rigs: `placement.<pipeline>`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from schemas.fields import GivenName, Moment

MOST_DEVICES, MOST_STAGES = 4096, 64


class PlacedDevice(BaseModel):
    """What a device does for a pipeline: the stages that it runs, and those whose queues it takes from; and why."""

    model_config = ConfigDict(frozen=True)
    runs: Annotated[tuple[GivenName, ...], Field(max_length=MOST_STAGES)] = ()
    takes: Annotated[tuple[GivenName, ...], Field(max_length=MOST_STAGES)] = ()
    why: GivenName = ""


class PlacedPipeline(BaseModel):
    """What each device does for one revision of a pipeline; devices that are not in it do everything.

    `rate` is the forecast in segments a second, `since_s` when it was decided, by `by`.
    """

    model_config = ConfigDict(frozen=True)
    pipeline: GivenName
    revision: GivenName
    devices: Annotated[dict[GivenName, PlacedDevice], Field(max_length=MOST_DEVICES)]
    rate: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    since_s: Moment
    by: GivenName = ""

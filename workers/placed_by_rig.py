"""Keeps the placement of each pipeline with work: a rig decides it by profiles and paces, and all rigs agree on one."""

import asyncio
import logging
import time
from collections.abc import Mapping

from engines.plan import plan_pipeline
from engines.workload import MediaFacts, with_observed_operations, workload
from pipelines.broker import Broker
from pipelines.fleet_view import known_fleet
from pipelines.models import load_card
from pipelines.placements import agree, known_placement
from pipelines.registry import hosted_pipelines
from pipelines.status import Depths, queue_depths
from placement.costs import Work
from placement.fleet import Fleet
from placement.routes import Placement, Role
from placement.rules import place
from schemas.errors import RigflowError, format_error
from schemas.media import MediaInfo
from schemas.pipeline import PipelineSpec
from schemas.placed import PlacedDevice, PlacedPipeline
from schemas.subjects import COLLECT, SPLIT
from workers.telemetry import Event, log_event

EVERY_S = 3.0
HOLD_S = 10.0  # so long a better placement must stay the same before it replaces one that still works
_TYPICAL = (1280, 720, 25)  # width, height and frames a second of media, as far as they are not known
_TYPICAL_BYTES_PER_S = 600_000
_GOP_S = 2.0  # between keyframes: a segment is not shorter, whatever a pipeline asks for


class Placer:
    """Decides the placements of a fleet for a rig; a better one must stay the same for `hold_s` before it counts."""

    def __init__(self, broker: Broker, rig: str, hold_s: float) -> None:
        self._broker = broker
        self._rig = rig
        self._hold_s = hold_s
        self._works: dict[str, Work] = {}  # by revision
        self._wanted: dict[str, tuple[Placement, float]] = {}  # a better placement of a pipeline, and since when

    async def place_all(self) -> None:
        """Renew or change the placement of each pipeline. Raises RigflowError."""
        fleet, specs, depths = await asyncio.gather(
            known_fleet(self._broker, taking_work=True), hosted_pipelines(self._broker), queue_depths(self._broker)
        )
        for spec in specs:
            try:
                await self._place(fleet, spec, depths)
            except RigflowError as error:
                text = f"pipeline {spec.name} is not placed: {format_error(error)}"
                log_event(Event("unplaced", text, facts={"pipeline": spec.name}))

    async def _place(self, fleet: Fleet, spec: PipelineSpec, depths: Depths) -> None:
        known, sequence = await known_placement(self._broker, spec.name)
        before = known if known is not None and known.revision == spec.revision else None
        if before is None and not _has_work(spec, depths):
            return
        work = with_observed_operations(await self._work(spec), fleet)
        if work is None:  # nothing is known of some model yet: everything is done everywhere, and measured
            return
        placed = _placement(before) if before is not None else None
        new = await asyncio.to_thread(place, fleet, work, placed)
        if before is not None and (new is placed or not self._held(new, placed)):
            await agree(self._broker, before, sequence)
            return
        self._wanted.pop(spec.name, None)
        agreed = _agreed(spec, new, self._rig, self._broker.now_s())
        if await agree(self._broker, agreed, sequence):
            _log(agreed, known)

    def _held(self, new: Placement, before: Placement | None) -> bool:
        """Whether a change is due: at once where devices came or went, else when it was wanted for `HOLD_S`."""
        if before is None or set(new.roles) != set(before.roles):
            return True
        wanted, since_s = self._wanted.get(new.pipeline, (None, 0.0))
        if wanted is None or wanted.roles != new.roles:
            self._wanted[new.pipeline] = new, time.monotonic()
            return False
        return time.monotonic() - since_s >= self._hold_s

    async def _work(self, spec: PipelineSpec) -> Work:
        if spec.revision not in self._works:
            cards = {name: await load_card(self._broker, identity) for name, identity in spec.models.items()}
            models = {name: (card, b"") for name, card in cards.items()}
            plan = await asyncio.to_thread(plan_pipeline, spec, cards)  # which imports operators, heads and formats
            self._works[spec.revision] = workload(spec, models, _typical(spec, pictures=not plan.decode.sounds))
        return self._works[spec.revision]


async def keep_placed(broker: Broker, rig: str, every_s: float = EVERY_S, hold_s: float = HOLD_S) -> None:
    """Keep the placements of the fleet until cancelled."""
    placer = Placer(broker, rig, hold_s)
    while True:
        try:
            await placer.place_all()
        except RigflowError:  # the broker is away: workers keep their roles for a while
            pass
        except Exception as error:
            log_event(Event("unexpected", f"placement failed: {format_error(error)}", logging.ERROR))
        await asyncio.sleep(every_s)


def _has_work(spec: PipelineSpec, depths: Depths) -> bool:
    stages = [SPLIT, *(stage.name for stage in spec.stage), COLLECT]
    return any((depth := depths.queues.get((spec.name, stage))) and depth.messages for stage in stages)


def _typical(spec: PipelineSpec, pictures: bool) -> MediaFacts:
    """A segment as it is usual: what a pipeline's media are is not known before they come."""
    width, height, rate = _TYPICAL
    seconds = max(_GOP_S, spec.segment_s)
    media = MediaInfo(
        kind=spec.media[0],
        codec="h264",
        time_base=(1, 1000),
        end=int(1000 * seconds),
        frame_rate=(rate, 1),
        width=width if pictures else 0,
        height=height if pictures else 0,
    )
    return MediaFacts(media, 1, int(_TYPICAL_BYTES_PER_S * seconds), rate * seconds)


def _placement(placed: PlacedPipeline) -> Placement:
    roles = {name: Role(device.runs, device.takes) for name, device in placed.devices.items()}
    return Placement(placed.pipeline, roles, {name: device.why for name, device in placed.devices.items()}, placed.rate)


def _agreed(spec: PipelineSpec, placed: Placement, rig: str, now_s: float) -> PlacedPipeline:
    devices: Mapping[str, PlacedDevice] = {
        name: PlacedDevice(runs=role.runs, takes=role.takes, why=placed.why[name])
        for name, role in placed.roles.items()
    }
    return PlacedPipeline(
        pipeline=spec.name, revision=spec.revision, devices=dict(devices), rate=placed.rate, since_s=now_s, by=rig
    )


def _log(placed: PlacedPipeline, before: PlacedPipeline | None) -> None:
    if before is not None and before.devices == placed.devices:
        return
    parts = {name: device.runs for name, device in placed.devices.items()}
    differ = len(set(parts.values())) > 1
    text = f"pipeline {placed.pipeline} is placed on {len(parts)} devices, " + (
        "; ".join(f"{name}: {', '.join(runs) or 'nothing'}" for name, runs in sorted(parts.items()))
        if differ
        else "all stages on each"
    )
    log_event(Event("placement", text, logging.INFO, {"pipeline": placed.pipeline, "rate": placed.rate}))

"""The fleet as the broker knows it, for `placement`: rigs and devices that run, with their profiles and their work."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.broker import Broker
from pipelines.orders import STARTING, TAKING_WORK
from pipelines.profiles import fleet_profiles, model_profiles
from pipelines.status import running_statuses
from placement.fleet import Device, Fleet, Rig, assumed_card, assumed_cpu
from schemas.device_profile import DeviceProfile
from schemas.model_profile import ModelProfile

Worker = Mapping[str, Any]  # the last status of a worker
LEAST_SECONDS = 0.5  # of work on a stage, so that its pace counts as measured
GPU_SHARE = 0.8  # of a GPU's memory, for models


async def known_fleet(broker: Broker, taking_work: bool = False) -> Fleet:
    """The fleet that runs now; those workers only that are `taking_work` or will soon, or all. Raises BrokerError."""
    (workers, rigs), profiles, models = await asyncio.gather(
        running_statuses(broker), fleet_profiles(broker), model_profiles(broker)
    )
    paces = {slot["worker"]: slot["paces"] for rig in rigs for slot in rig["workers"] if "paces" in slot}
    some = [each for each in workers if not taking_work or each["state"] in (STARTING, *TAKING_WORK)]
    return fleet_of([{**worker, "paces": paces.get(worker["worker"])} for worker in some], profiles, models)


def fleet_of(workers: Sequence[Worker], profiles: Iterable[DeviceProfile], models: Iterable[ModelProfile]) -> Fleet:
    """The fleet of these workers: those of one rig together; without a rig, those of one host."""
    known = {profile.device: profile for profile in profiles}
    costs: dict[str, list[ModelProfile]] = {}
    for model in models:
        costs.setdefault(model.device, []).append(model)
    rigs: dict[str, list[Worker]] = {}
    for worker in workers:
        rigs.setdefault(str(worker.get("rig") or worker.get("host") or worker["worker"]), []).append(worker)
    return Fleet(tuple(_rig(name, each, known, costs) for name, each in sorted(rigs.items())))


def device_of(worker: Worker) -> str:
    """The name of a worker's device in the fleet: the cores of a rig are one, and several workers may share a GPU."""
    rig = str(worker.get("rig") or worker.get("host") or worker["worker"])
    device = str(worker["device"])
    return f"{rig}-cpu" if device == "cpu" else f"{rig}-{_uuid(worker) or device.partition(':')[2]}"


def _rig(
    name: str, workers: Sequence[Worker], known: Mapping[str, DeviceProfile], costs: Mapping[str, list[ModelProfile]]
) -> Rig:
    groups: dict[tuple[str, tuple[str, ...]], list[Worker]] = {}
    for worker in workers:
        groups.setdefault((device_of(worker), _allowed(worker)), []).append(worker)
    count = max(int(worker.get("cores", 1)) for worker in workers)
    host = next((known[each] for worker in workers if (each := str(worker.get("processor", ""))) in known), None)
    devices = []
    for number, (device, allowed) in enumerate(sorted(groups)):
        alone = sum(other == device for other, _ in groups) == 1
        named = device if alone else f"{device}-{number}"
        devices.append(_device(named, groups[device, allowed], host, count, known, costs))
    return Rig(name, count, tuple(devices), host)


def _device(
    name: str,
    workers: Sequence[Worker],
    host: DeviceProfile | None,
    cores: int,
    known: Mapping[str, DeviceProfile],
    costs: Mapping[str, list[ModelProfile]],
) -> Device:
    first = workers[0]
    cpu = first["device"] == "cpu"
    gpu = first.get("gpu", {})
    of = str(first.get("processor", "")) if cpu else _uuid(first)
    assumed = assumed_cpu(cores) if cpu else assumed_card(str(gpu.get("name") or "a GPU"))
    threads = cores if cpu else 1  # a model's profile is that of one thread of a processor, or of an entire GPU
    measured = host if cpu else known.get(of)
    profile = measured if measured is not None and _same_driver(measured, first) else assumed
    return Device(
        name=name,
        profile=profile,
        memory_bytes=0 if cpu else int(GPU_SHARE * int(gpu.get("memory_bytes", 0))),
        row_s={
            model.what.model: 1.0 / model.rows_per_s / threads
            for model in costs.get(of, ())
            if _same_driver(model, first)
        },
        frame_s=_frame_s(workers, one=not cpu),
        workers=len(workers) if cpu else 1,
        hosts=_allowed(first),
        declines=tuple(sorted(set.intersection(*(set(worker.get("declined", ())) for worker in workers)))),
    )


def _frame_s(workers: Sequence[Worker], one: bool) -> dict[tuple[str, str], float]:
    """Seconds of a frame by pipeline and stage, of all work that these workers have done of it.

    `one`: they share one device at the same time, so that each of them waits for the others: the seconds of the
    busiest one count, and the frames of all. Else each has a core of its own. `paces` are by their rig, and count
    processes that have ended, too."""
    frames: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for worker in workers:
        done = [(of["pipeline"], of["stage"], of["frames"], of.get("seconds", 0.0)) for of in worker.get("done", ())]
        for pipeline, stage, count, taken_s in worker.get("paces") or done:
            key = str(pipeline), str(stage)
            frames[key] = frames.get(key, 0.0) + float(count)
            seconds.setdefault(key, []).append(float(taken_s))
    taken = {key: max(each) if one else sum(each) for key, each in seconds.items()}
    return {key: taken[key] / frames[key] for key in frames if frames[key] and taken[key] >= LEAST_SECONDS}


def _same_driver(measured: DeviceProfile | ModelProfile, worker: Worker) -> bool:
    """Whether what was measured on a worker's GPU is of its driver; yes where the worker does not send its driver."""
    driver = worker.get("gpu", {}).get("driver")
    return driver is None or measured.driver == driver


def _allowed(worker: Worker) -> tuple[str, ...]:
    """The stages that its settings name; none where it takes whatever it is given."""
    stages = tuple(worker["stages"])
    return () if "all" in stages else stages


def _uuid(worker: Worker) -> str:
    return str(worker.get("gpu", {}).get("uuid", ""))

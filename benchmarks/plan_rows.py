"""The jobs of `benchmarks.plans`: pipelines, imagined fleets, and what is predicted of them."""

from dataclasses import dataclass, replace
from pathlib import Path

from engines.media.limits import Limits
from engines.media.medium import Input, SplitRequest
from engines.media.shared import SharedFolders
from engines.outputs.format import sound_of
from engines.parts_of_work import parts_of
from engines.workload import media_facts, workload
from pipelines.registry import builtin_pipeline
from placement.costs import Work
from placement.fleet import Fleet, Rig, scaled
from placement.forecast import Forecast, forecast
from placement.imagined import imagined_fleet
from placement.simulated import Submission
from placement.simulated_machine import WorkerRules
from placement.simulation import simulate
from schemas.device_profile import DeviceProfile
from schemas.fleet_file import parse_fleet
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.nets import resnet
from workers.definitions import Models, find_models

CLASSIFY = """
name = "classify"
media = "video"

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
size = [64, 64]
layout = "rgb"

[[stage]]
kind = "infer"
model = "resnet"
max_batch = 32

[[stage]]
kind = "encode"
format = "npz"
"""
PIPELINES = ("fingerprint", "scenes", "upscale2x", "classify")
# networks are fast, because the film is small: for its pixels it has ten times the bytes of a usual one
FLEETS = {
    "mining": """
[[rig]]
name = "mining"
count = 2
cores = 2
network = 10e9
  [[rig.card]]
  name = "P106-100"
  count = 3
  tflops = 4.4
  pcie = 2e8
  decode = { "h264 1280x720" = 700 }
""",
    "one to eight": """
[[rig]]
name = "server"
cores = 8
network = 10e9
  [[rig.card]]
  name = "fast"
  tflops = 12.8
  pcie = 1.2e10
  decode = { "h264 1280x720" = 2400 }

[[rig]]
name = "old"
cores = 2
network = 10e9
  [[rig.card]]
  name = "slow"
  count = 3
  tflops = 1.6
  pcie = 2e8
  decode = { "h264 1280x720" = 300 }
""",
    "no decoders": """
[[rig]]
name = "cards"
cores = 1
network = 10e9
  [[rig.card]]
  name = "without a decoder"
  count = 3
  tflops = 10
  pcie = 1.6e9

[[rig]]
name = "server"
cores = 6
network = 10e9
""",
}
SEGMENT_S, SIZE = 4, (48, 64)  # seconds of a segment; height and width
# frames a second: few, because this machine must compute them in less time than the imagined fleet
RATES = {"fingerprint": 10, "scenes": 3, "upscale2x": 5, "classify": 5}
EACH = 20  # segments for each worker
ROUNDS = 6  # of approaching the seconds of a job


@dataclass(frozen=True)
class Row:
    """A job on a fleet: what is predicted of it. `placement` is that of the forecast."""

    spec: PipelineSpec
    models: Models
    film: Path
    fleet: Fleet
    work: Work
    plan: Forecast
    simulated_s: float


def models_of(name: str) -> tuple[PipelineSpec, Models]:
    """A pipeline, and its models."""
    if name != "classify":
        spec = builtin_pipeline(name)
        return spec, find_models(spec, None)
    card, body = resnet()
    return parse_pipeline(CLASSIFY, "classify.toml"), {card.name: (card, body)}


def film_of(folder: Path, pipeline: str, segments: int) -> Path:
    """A film of so many segments."""
    rate = RATES[pipeline]
    frames = SEGMENT_S * rate
    return make_clip(folder, Clip(frames=frames * segments, gop=frames, b_frames=0, size=SIZE, rate=rate))


def slowed(fleet: Fleet, times: float) -> Fleet:
    """The fleet with all figures of its machines divided by `times`."""
    return Fleet(tuple(_slowed_rig(rig, times) for rig in fleet.rigs))


def _slowed_rig(rig: Rig, times: float) -> Rig:
    devices = tuple(replace(device, profile=_slowed(device.profile, times)) for device in rig.devices)
    return replace(
        rig, devices=devices, host=_slowed(rig.processor, times), link_bytes_per_s=rig.link_bytes_per_s / times
    )


def _slowed(profile: DeviceProfile, times: float) -> DeviceProfile:
    links = {
        "to_device_bytes_per_s": profile.to_device_bytes_per_s / times,
        "from_device_bytes_per_s": profile.from_device_bytes_per_s / times,
    }
    return scaled(profile, 1.0 / times).model_copy(update=links)


def row_of(pipeline: str, fleet: str, folder: Path, seconds: float, each: int = EACH) -> Row:
    """The job of a pipeline on a fleet that takes about so many seconds by the plan."""
    spec, models = models_of(pipeline)
    known = imagined_fleet(parse_fleet(FLEETS[fleet], fleet))
    pieces = each * sum(device.workers for _, device in known.places())
    film = film_of(folder, pipeline, pieces)
    limits = Limits.of(Settings())
    request: SplitRequest = SplitRequest(spec.grid, spec.segment_s, sound_of(spec.encode), limits, SharedFolders.of(""))
    facts = media_facts(spec, [Input(film, film.name)], request)
    work = workload(spec, models, facts)
    times = 1.0
    for _ in range(ROUNDS):
        times *= seconds / forecast(slowed(known, times), work, with_gains=False).finish_s
    slow = slowed(known, times)
    plan = forecast(slow, work, with_gains=False)
    parts, batch = parts_of(spec, models, facts, work)
    simulated = simulate(slow, [Submission(work, parts=parts, batch=batch)], [plan.placement], WorkerRules())
    return Row(spec, models, film, slow, work, plan, simulated.finish_s)

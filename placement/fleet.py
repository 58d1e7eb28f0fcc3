"""The machines that work could run on, as measured or as imagined: rigs with cores and a network link, and devices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from schemas.device_profile import FP32, DeviceProfile
from schemas.fleet_file import CARRIED, CORE_BYTES_PER_S, CORE_OPERATIONS_PER_S

ETHERNET_BYTES_PER_S = CARRIED * 125e6  # of 1 Gbit/s: the network link of a rig that is not known
CARD_OPERATIONS_PER_S = 4e12  # fp32 of a GPU that was not measured: that of a mining card
GPU_DECODERS = 8  # segments that a GPU's worker decodes at a time where its decoder's engines are not known
MOST_DECODERS = 16  # at most, by the setting `decoders`
# segments beyond one for each engine of a GPU's video decoder, so that none waits for the next, and one more for so
# many engines: the driver does not spread sessions over them evenly
SPARE_DECODERS, ENGINES_A_SPARE = 2, 4
FIRST_ITEMS = 3  # segments that a GPU's worker takes before it knows how long one takes
AHEAD_S, AHEAD_PARTS = 1.0, 2  # work and decoded parts in a GPU's worker with which its decoders need no more segments


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a rig, or the rig's cores, which are one device together (`profile.kind` is `cpu`).

    `profile` is that of all its cores. `row_s`: measured seconds of one row of a model, by the model's identity, on the
    entire device; `frame_s`: measured seconds of one frame of a stage, by pipeline and stage, which count before all
    else. `memory_bytes` is what models may use; 0: unknown. `workers`: how many pieces it computes at a time; a GPU's
    worker is one, and cores have one each. `hosts`: the only kinds or names of stages that its settings allow; empty:
    all. `declines`: pipelines of which it takes nothing, because it cannot load them.
    """

    name: str
    profile: DeviceProfile
    memory_bytes: int = 0
    row_s: Mapping[str, float] = field(default_factory=dict)
    frame_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    workers: int = 1
    hosts: tuple[str, ...] = ()
    declines: tuple[str, ...] = ()

    @property
    def is_cpu(self) -> bool:
        """Whether it is the cores of its rig."""
        return self.profile.kind == "cpu"

    def pieces(self, cores: int) -> int:
        """How many pieces it works on at a time, each at another step, on a rig with so many cores."""
        return self.workers if self.is_cpu else self.workers * decoded_at_a_time(self.profile.decoders, cores)


@dataclass(frozen=True, slots=True)
class Rig:
    """One machine. `host` is the profile of its processor, of all `cores`; without it, it is estimated.

    `link_bytes_per_s` is its way to the broker, each way.
    """

    name: str
    cores: int
    devices: tuple[Device, ...]
    host: DeviceProfile | None = None
    link_bytes_per_s: float = ETHERNET_BYTES_PER_S

    @property
    def processor(self) -> DeviceProfile:
        """The profile of its processor, measured or assumed."""
        measured = self.host or next((device.profile for device in self.devices if device.is_cpu), None)
        return measured or assumed_cpu(self.cores)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All rigs, in the order of their names."""

    rigs: tuple[Rig, ...]

    def __post_init__(self) -> None:
        ordered = (
            replace(rig, devices=tuple(sorted(rig.devices, key=lambda device: device.name))) for rig in self.rigs
        )
        object.__setattr__(self, "rigs", tuple(sorted(ordered, key=lambda rig: rig.name)))

    def places(self) -> list[tuple[Rig, Device]]:
        """Each device with its rig, in order."""
        return [(rig, device) for rig in self.rigs for device in rig.devices]


def decoded_at_a_time(decoders: int | None, cores: int, most: int = MOST_DECODERS) -> int:
    """Segments that a GPU's worker decodes at a time, `most` at most: more would only wait there.

    `decoders` are the engines of its video decoder; 0: the host's cores decode; None: unknown.
    """
    if decoders:
        return min(most, decoders + SPARE_DECODERS + decoders // ENGINES_A_SPARE)
    return max(1, min(most, GPU_DECODERS, GPU_DECODERS if decoders is None else cores + SPARE_DECODERS))


def pieces_to_decode(at_a_time: int, every_s: float, prefetch_s: float) -> int:
    """Segments, not decoded yet, that keep the decoders of a worker busy, which has `at_a_time` of them.

    Beyond one for each decoder they are those that begin within `prefetch_s`, which is the time to fetch one; one ends
    each `every_s`. 0 means that this is not known yet: a slow device would then keep segments from faster ones.
    """
    if not every_s:
        return min(at_a_time, FIRST_ITEMS)
    return at_a_time + min(at_a_time // 2, int(prefetch_s / every_s))


def assumed_cpu(cores: int) -> DeviceProfile:
    """The profile of a processor that was not measured: an estimate, which `measured_s` 0 marks."""
    return DeviceProfile(
        device="assumed-cpu",
        kind="cpu",
        name=f"a processor, {cores} core{'' if cores == 1 else 's'}",
        measured_s=0.0,
        seconds=0.0,
        operations_per_s={FP32: CORE_OPERATIONS_PER_S * cores},
        memory_bytes_per_s=CORE_BYTES_PER_S * cores,
    )


def assumed_card(name: str = "a GPU") -> DeviceProfile:
    """The profile of a GPU that was not measured: an estimate, which `measured_s` 0 marks."""
    return DeviceProfile(
        device="assumed-gpu",
        kind="cuda",
        name=name,
        measured_s=0.0,
        seconds=0.0,
        operations_per_s={FP32: CARD_OPERATIONS_PER_S},
        memory_bytes_per_s=1.5e11,
        to_device_bytes_per_s=2e8,
        from_device_bytes_per_s=2e8,
        decode_frames_per_s={"h264 1280x720": 600.0, "hevc 1280x720": 600.0},
    )


def scaled(profile: DeviceProfile, times: float) -> DeviceProfile:
    """The profile of a processor with so many times the cores."""
    return profile.model_copy(
        update={
            "operations_per_s": {kind: times * rate for kind, rate in profile.operations_per_s.items()},
            "memory_bytes_per_s": times * profile.memory_bytes_per_s,
            "decode_frames_per_s": {what: times * rate for what, rate in profile.decode_frames_per_s.items()},
            "encode_frames_per_s": {what: times * rate for what, rate in profile.encode_frames_per_s.items()},
        }
    )

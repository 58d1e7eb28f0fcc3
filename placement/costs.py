"""What one piece of a job costs: seconds of each part of a machine, and bytes between stages.

A figure is measured where a device was measured with it, and otherwise estimated from operations and bytes; a `Cost`
says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from placement.fleet import Device, Rig
from schemas.device_profile import FP32, FP32_SEPARATE, DeviceProfile

_REACHED = {"cpu": 0.5, "cuda": 0.35}  # of the measured arithmetic rate, by an average network
_CORE_PIXELS_PER_S = 2e8  # decoded by one core, if its rate of that codec is not known
_CORE_ENCODED_PIXELS_PER_S = 4e7  # encoded by one core, likewise
_TOUCHED = 4  # times that an operator without a model reads or writes each byte it gives
_FRAME_CORE_S = 0.4e-3  # of the host for each frame that a GPU decodes
_PIECE_CORE_S = 4e-3  # of the host for each piece: messages, settling
_PLANES = 1.5  # bytes of a pixel as a decoder gives it
_MOST_MEASURED_S = 1e6  # of one frame or row: what is stated to be longer, or is no number, was not measured


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one stage does with one piece, whatever computes it.

    `rows` of `model` (its identity), each with `operations` (a multiplication and an addition are two); `frames` of
    `width` x `height` that it decodes, changes or encodes, in `codec`. `gives_bytes` is the size of what it gives, as
    it travels to another rig; `takes_bytes` that of the arrays that encode gets, if its results have another size.
    `model_bytes`: memory of the model. `of_decode`: it stays with decode, which does it in the same step, or in order.
    """

    name: str
    kind: str
    frames: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    model: str = ""
    rows: float = 0.0
    operations: float = 0.0
    model_bytes: int = 0
    gives_bytes: float = 0.0
    takes_bytes: float = 0.0
    of_decode: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A job, or several alike: `pieces` (segments) of `piece_bytes`, each through the `stages` in order.

    The stages are those of the pipeline, from decode to encode. `frames` are those of a piece as results count them,
    also those that no window uses.
    """

    pipeline: str
    stages: tuple[StageWork, ...]
    pieces: int = 1
    piece_bytes: float = 0.0
    frames: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its stages."""
        return tuple(stage.name for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one piece: of a device's arithmetic, decoder, encoder and link, and of one core of its rig.

    `estimated`: at least one of the figures was not measured.
    """

    compute_s: float = 0.0
    decoder_s: float = 0.0
    encoder_s: float = 0.0
    link_s: float = 0.0
    core_s: float = 0.0
    estimated: bool = False

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.compute_s + other.compute_s,
            self.decoder_s + other.decoder_s,
            self.encoder_s + other.encoder_s,
            self.link_s + other.link_s,
            self.core_s + other.core_s,
            self.estimated or other.estimated,
        )

    @property
    def seconds(self) -> float:
        """How long a piece takes by itself, one part of the machine after the other."""
        return self.compute_s + self.decoder_s + self.encoder_s + self.link_s + self.core_s

    @property
    def units(self) -> Mapping[str, float]:
        """Seconds of each part, without those that it does not need."""
        named = {
            "compute": self.compute_s,
            "decoder": self.decoder_s,
            "encoder": self.encoder_s,
            "link": self.link_s,
            "cores": self.core_s,
        }
        return {unit: seconds for unit, seconds in named.items() if seconds > 0.0}


NOTHING = Cost()


def cost(work: Work, stage: StageWork, rig: Rig, device: Device) -> Cost:
    """What a stage of one piece costs on a device of a rig."""
    per_frame = device.frame_s.get((work.pipeline, stage.name))
    if _is_measured(per_frame):
        seconds = per_frame * (work.frames or 1.0)
        return Cost(core_s=seconds) if device.is_cpu else Cost(compute_s=seconds)
    made = _decode(work, stage, rig, device) if stage.kind == "decode" else NOTHING
    if stage.kind == "encode":
        made += _encode(stage, rig, device)
    elif stage.rows and (stage.operations or _is_measured(device.row_s.get(stage.model))):
        made += _infer(stage, rig, device)
    elif stage.kind != "decode":
        made += _touch(stage, rig, device)
    return made


def fits(stages: tuple[StageWork, ...], device: Device) -> bool:
    """Whether the models of these stages fit into the device's memory together; an unknown memory fits all."""
    models = {stage.model: stage.model_bytes for stage in stages if stage.model}
    return not device.memory_bytes or sum(models.values()) <= device.memory_bytes


def core_count(rig: Rig) -> float:
    """Cores of a rig, at least 1: the rates of its processor's profile are those of all cores together."""
    return float(max(1, rig.cores))


def frames_per_s(rates: Mapping[str, float], codec: str, width: int, height: int) -> tuple[float, bool]:
    """The rate of a codec at a size, and whether it was measured; 0: the device has none for it.

    `rates` are by `codec WIDTHxHEIGHT`. Other sizes follow the nearest that was measured, by pixels.
    """
    pixels = max(1, width * height)
    found = [
        (_pixels(size), rate) for name, rate in rates.items() for of, _, size in [name.partition(" ")] if of == codec
    ]
    if not found:
        return 0.0, False
    near, rate = min(found, key=lambda each: (abs(each[0] - pixels), each[0]))
    return rate * near / pixels, near == pixels


def _decode(work: Work, stage: StageWork, rig: Rig, device: Device) -> Cost:
    """By the device's decoder if it has one for the codec, else by the rig's cores, with planes over the link."""
    if not stage.frames or not stage.width:  # sound, text, rows of numbers
        return Cost(core_s=_PIECE_CORE_S, estimated=True)
    profile = device.profile
    rate, measured = frames_per_s(profile.decode_frames_per_s, stage.codec, stage.width, stage.height)
    if rate and not device.is_cpu:
        core_s = _PIECE_CORE_S + _FRAME_CORE_S * stage.frames
        link_s = _over(work.piece_bytes, profile.to_device_bytes_per_s)
        return Cost(decoder_s=stage.frames / rate, core_s=core_s, link_s=link_s, estimated=not measured)
    host = rig.processor
    rate, measured = frames_per_s(host.decode_frames_per_s, stage.codec, stage.width, stage.height)
    pixels = stage.frames * stage.width * stage.height
    core_s = core_count(rig) * stage.frames / rate if rate else pixels / _CORE_PIXELS_PER_S
    link_s = 0.0 if device.is_cpu else _over(_PLANES * pixels, profile.to_device_bytes_per_s)
    return Cost(core_s=_PIECE_CORE_S + core_s, link_s=link_s, estimated=not measured)


def _encode(stage: StageWork, rig: Rig, device: Device) -> Cost:
    """By the rig's cores, which is the default; arrays of a GPU cross the link first."""
    taken = stage.takes_bytes or stage.gives_bytes
    link_s = 0.0 if device.is_cpu else _over(taken, device.profile.from_device_bytes_per_s)
    if not stage.codec:  # numbers, text: their size alone
        core_s = _PIECE_CORE_S + _over(_TOUCHED * stage.gives_bytes, _core_bytes_per_s(rig))
        return Cost(core_s=core_s, link_s=link_s, estimated=True)
    pixels = stage.frames * stage.width * stage.height
    rate, measured = frames_per_s(rig.processor.encode_frames_per_s, stage.codec, stage.width, stage.height)
    core_s = core_count(rig) * stage.frames / rate if rate else pixels / _CORE_ENCODED_PIXELS_PER_S
    link_s += 0.0 if device.is_cpu else _over(_PLANES * pixels, device.profile.from_device_bytes_per_s)
    return Cost(core_s=_PIECE_CORE_S + core_s, link_s=link_s, estimated=not measured)


def _infer(stage: StageWork, rig: Rig, device: Device) -> Cost:
    row_s = device.row_s.get(stage.model)
    if not (measured := _is_measured(row_s)):
        row_s = _row_s(stage, device.profile)
    if device.is_cpu:
        return Cost(core_s=core_count(rig) * row_s * stage.rows, estimated=not measured)
    return Cost(compute_s=row_s * stage.rows, estimated=not measured)


def _is_measured(seconds: float | None) -> TypeGuard[float]:
    """Return whether a time may be one that was measured; nothing that takes no time has a pace."""
    return seconds is not None and 0.0 < seconds < _MOST_MEASURED_S


def _row_s(stage: StageWork, profile: DeviceProfile) -> float:
    """Seconds of a row by its operations, in float32 by the faster of the device's two ways."""
    rates = profile.operations_per_s
    rate = max(rates.get(FP32, 0.0), rates.get(FP32_SEPARATE, 0.0)) * _REACHED[profile.kind]
    return _over(stage.operations, rate)


def _touch(stage: StageWork, rig: Rig, device: Device) -> Cost:
    """An operator without a model, which reads and writes what it gives."""
    nbytes = _TOUCHED * stage.gives_bytes
    if device.is_cpu:
        return Cost(core_s=_over(nbytes, _core_bytes_per_s(rig)), estimated=True)
    return Cost(compute_s=_over(nbytes, device.profile.memory_bytes_per_s), estimated=True)


def _core_bytes_per_s(rig: Rig) -> float:
    return rig.processor.memory_bytes_per_s / core_count(rig)


def _over(amount: float, rate: float) -> float:
    """Seconds for an amount at a rate; none where there is no such part."""
    return amount / rate if rate > 0.0 else 0.0


def _pixels(size: str) -> int:
    width, _, height = size.partition("x")
    return int(width) * int(height) if width.isdigit() and height.isdigit() else 0

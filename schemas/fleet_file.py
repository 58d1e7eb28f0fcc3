"""The file of an imagined fleet, for `rigflow plan --fleet`: machines, their cards and their links."""

from typing import Annotated, TypeAlias

from pydantic import Field, FiniteFloat

from schemas.declared import Name, Spec, parse_spec, spelled
from schemas.device_profile import FP32, DeviceProfile

SEE = "see docs/placement.md"
CARRIED = 118e6 / 125e6  # of a network link's nominal rate: TCP payload of 1 Gbit/s Ethernet
CORE_OPERATIONS_PER_S = 30e9  # fp32 of one core of a processor that was not measured, assumed
CORE_BYTES_PER_S = 5e9  # of memory, likewise


Size: TypeAlias = Annotated[
    str, spelled(r"[a-z0-9]+ [1-9][0-9]{0,4}x[1-9][0-9]{0,4}", 'takes a codec and a size, such as "h264 1280x720"')
]
Rate: TypeAlias = Annotated[FiniteFloat, Field(ge=0, le=1e9)]


class CardEntry(Spec):
    """`count` equal GPUs: `tflops` of float32, `pcie` bytes/s each way, `decode` frames a second by codec and size,
    of all its `decoders` together.

    Without `tflops` what it states replaces figures of a device of that name that the fleet knows, or published ones.
    """

    name: str = Field(max_length=200)
    count: int = Field(default=1, ge=1, le=64)
    tflops: FiniteFloat | None = Field(default=None, gt=0, le=1e4)
    pcie: FiniteFloat = Field(default=8e9, gt=0)
    memory_bytes: int = Field(default=0, ge=0)
    memory_bytes_per_s: FiniteFloat = Field(default=2e11, gt=0)
    decoders: int = Field(default=1, ge=1, le=64, description="engines of its video decoder")
    decode: dict[Size, Rate] = Field(default={}, description="`codec WIDTHxHEIGHT` -> frames a second")

    @property
    def profile(self) -> DeviceProfile:
        """The profile that the entry states; one that was not measured."""
        return DeviceProfile(
            device="stated",
            kind="cuda",
            name=self.name,
            measured_s=0.0,
            seconds=0.0,
            operations_per_s={FP32: (self.tflops or 0.0) * 1e12},
            memory_bytes_per_s=self.memory_bytes_per_s,
            to_device_bytes_per_s=self.pcie,
            from_device_bytes_per_s=self.pcie,
            decoders=self.decoders if self.decode else 0,
            decode_frames_per_s=self.decode,
        )

    def changed(self, known: DeviceProfile) -> DeviceProfile:
        """The profile of a device of this name, with the figures that the entry states."""
        stated = self.model_fields_set
        new: dict[str, object] = {}
        if "pcie" in stated:
            new |= {"link": "", "to_device_bytes_per_s": self.pcie, "from_device_bytes_per_s": self.pcie}
        if "memory_bytes_per_s" in stated:
            new["memory_bytes_per_s"] = self.memory_bytes_per_s
        if "decode" in stated:
            new |= {"decode_frames_per_s": self.decode, "decoders": self.decoders if self.decode else 0}
        elif "decoders" in stated:
            new["decoders"] = self.decoders
        return known.model_copy(update=new)


class RigEntry(Spec):
    """`count` equal machines of `cores` and cards. `network` in bits a second. `works`: the cores compute, too."""

    name: Name
    count: int = Field(default=1, ge=1, le=256)
    cores: int = Field(ge=1, le=1024)
    core_speed: FiniteFloat = Field(default=1.0, gt=0, le=100, description="times that of a usual core")
    network: FiniteFloat = Field(default=1e9, gt=0)
    works: bool | None = None
    card: tuple[CardEntry, ...] = ()

    @property
    def network_bytes_per_s(self) -> float:
        """What its network link carries."""
        return self.network / 8 * CARRIED

    @property
    def processor(self) -> DeviceProfile:
        """The profile of its cores; one that was not measured."""
        speed = self.cores * self.core_speed
        return DeviceProfile(
            device="stated",
            kind="cpu",
            name=f"{self.cores} cores",
            measured_s=0.0,
            seconds=0.0,
            operations_per_s={FP32: CORE_OPERATIONS_PER_S * speed},
            memory_bytes_per_s=CORE_BYTES_PER_S * speed,
            decode_frames_per_s={f"{codec} 1280x720": 220.0 * speed for codec in ("h264", "hevc", "vp9", "av1")},
            encode_frames_per_s={"h264 1280x720": 43.0 * speed},
        )


class FleetSpec(Spec):
    """An imagined fleet."""

    rig: tuple[RigEntry, ...] = Field(min_length=1)


def parse_fleet(text: str, source: str) -> FleetSpec:
    """A fleet from the text of its file; `source` names it in errors. Raises UsageError, by field."""
    return parse_spec(FleetSpec, text, source, SEE)

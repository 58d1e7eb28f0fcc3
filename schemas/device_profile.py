"""What one device was measured to do: arithmetic, memory, link and codecs, kept by the id of the device."""

from typing import Literal

from pydantic import Field

from schemas.declared import Name, Spec

FP32, FP32_SEPARATE, FP16, FP16_SEPARATE = "fp32", "fp32 without FMA", "fp16", "fp16 without FMA"
INT8, FP16_TENSOR = "int8", "fp16 of tensor cores"
_SLOW_LINK = 2e9  # bytes a second; below it, pixels of 1080p cross the link slower than a decoder makes them
_WORTH_IT = 1.2  # times as fast as the usual way, so that another way is worth choosing
_HALF = 0.5
_THROTTLED = 0.9  # of the first seconds' rate: clocks that fall further are told


class DeviceProfile(Spec):
    """Rates that were measured on one device, in base units.

    `operations_per_s` counts a multiplication and an addition as two, by kind; a kind that the device lacks is left
    out. Codec rates are frames a second by `codec WIDTHxHEIGHT`, of all decoders or encoders together.
    """

    version: Literal[1] = 1  # another version is measured anew
    device: Name  # the UUID of a GPU; for a CPU `cpu-` and a hash of its model, its cores and the machine
    kind: Literal["cpu", "cuda"]
    name: str = Field(max_length=200)
    driver: str = Field(default="", max_length=100)  # of a GPU; a new one asks for a new profile
    link: str = Field(default="", max_length=100)  # the PCI Express link in words
    measured_s: float  # Unix time
    seconds: float  # that the measurement took
    operations_per_s: dict[str, float]
    memory_bytes_per_s: float  # read and written
    to_device_bytes_per_s: float = 0.0  # 0: it has no link
    from_device_bytes_per_s: float = 0.0
    decoders: int | None = Field(default=None, ge=0)  # engines of its video decoder; 0: it has none; None: unknown
    decode_frames_per_s: dict[str, float] = Field(default_factory=dict)
    encode_frames_per_s: dict[str, float] = Field(default_factory=dict)
    sustained_s: float = 0.0  # for so long the rate of fp32 was watched
    sustained_ratio: float = 1.0  # of its last seconds to its first ones

    @property
    def fp16_ratio(self) -> float:
        """Rate of fp16 by that of fp32, by the faster way of each. 0: unknown."""
        rates = self.operations_per_s
        fp32 = max(rates.get(FP32, 0.0), rates.get(FP32_SEPARATE, 0.0))
        fp16 = max(rates.get(kind, 0.0) for kind in (FP16, FP16_SEPARATE, FP16_TENSOR))
        return fp16 / fp32 if fp32 else 0.0

    @property
    def summary(self) -> str:
        """Its arithmetic, memory and link on one line."""
        rows = [*self._arithmetic(), ("memory", f"{_si(self.memory_bytes_per_s)}B/s"), *self._link()]
        return ", ".join(f"{subject} {statement}" for subject, statement in rows)

    def rows(self) -> list[tuple[str, str]]:
        """What the figures mean, in words: a subject and a statement each."""
        rows = [*self._arithmetic(), ("memory", f"{_si(self.memory_bytes_per_s)}B/s"), *self._link()]
        for subject, rates in (("decodes", self.decode_frames_per_s), ("encodes", self.encode_frames_per_s)):
            codecs: dict[str, list[str]] = {}
            for what, rate in rates.items():
                codec, _, size = what.partition(" ")
                codecs.setdefault(codec, []).append(f"{rate:,.0f} at {size}")
            rows += [(f"{subject} {codec}", f"{', '.join(each)} frames/s") for codec, each in codecs.items()]
        if self.sustained_s:
            kept = f"{self.sustained_ratio:.0%} of the first rate after {self.sustained_s:.0f} s of work"
            rows.append(("clocks", kept if self.sustained_ratio >= _THROTTLED else f"{kept}: cool it better"))
        return rows

    def _arithmetic(self) -> list[tuple[str, str]]:
        rates = self.operations_per_s
        if not (fp32 := rates.get(FP32, 0.0)):
            return []
        rows = [("fp32", f"{_si(fp32)}op/s")]
        if (separate := rates.get(FP32_SEPARATE, 0.0)) > _WORTH_IT * fp32:
            rows.append(("multiply-add", f"slowed down: separate, {_si(separate)}op/s"))
        if self.kind == "cuda":
            rows.append(("fp16", f"{_ratio(self.fp16_ratio)} of fp32" + (": never" if self.fp16_ratio < 1 else "")))
        if INT8 in rates:
            rows.append((INT8, f"{_ratio(rates[INT8] / fp32)} of fp32"))
        return rows

    def _link(self) -> list[tuple[str, str]]:
        there, back = self.to_device_bytes_per_s, self.from_device_bytes_per_s
        if not min(there, back):
            return []
        advice = ": send compressed media, not pixels" if min(there, back) < _SLOW_LINK else ""
        return [(self.link or "link", f"{_si(there)}B/s in, {_si(back)}B/s out{advice}")]


def _si(value: float) -> str:
    """`4.3 T`, `192 G`: three digits and the prefix of the unit."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}"
    return f"{value:.3g} "


def _ratio(value: float) -> str:
    """`2 x`, or `1/64` where it is less than a half."""
    return f"1/{1 / value:.0f}" if 0 < value < _HALF else f"{value:.2g} x"

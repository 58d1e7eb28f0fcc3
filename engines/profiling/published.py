"""Profiles of GPUs by the figures that their makers publish, for fleets that are simulated: none is measured."""

import functools
import re
from collections.abc import Iterable, Sequence
from importlib import resources

from pydantic import Field

from schemas.declared import Spec
from schemas.device_profile import FP16, FP16_SEPARATE, FP16_TENSOR, FP32, FP32_SEPARATE, INT8, DeviceProfile
from schemas.errors import UsageError
from schemas.text import did_you_mean
from schemas.toml import parse_toml

LANE_BYTES_PER_S = {1: 0.21e9, 2: 0.42e9, 3: 0.83e9, 4: 1.66e9, 5: 3.3e9}  # by generation of PCI Express
_DECODED = {"1920x1080": 625.0, "1280x720": 1180.0}  # frames/s of one decoder of a Hopper, measured
_TENSOR = 2.0  # times the rate of fp32, above which float16 is that of tensor cores
_MEGA, _GIGA = 1e6, 1e9


class Generation(Spec):
    """What the cards of one architecture have in common; cards.toml says where the figures are from."""

    fp16: float
    int8: float
    decode: float
    codecs: tuple[str, ...]


class PublishedCard(Spec):
    """A row of cards.toml."""

    name: str
    generation: str
    cores: int
    boost_mhz: float
    memory_gb: float
    memory_gb_per_s: float
    pcie: int
    lanes: int
    decoders: int
    watts: float
    mining: bool = False
    slowed: tuple[float, float] = (1.0, 1.0)
    note: str = ""
    of: Generation = Field(exclude=True)

    @property
    def memory_bytes(self) -> int:
        """Its memory."""
        return int(self.memory_gb * (1 << 30))

    @property
    def usual_link(self) -> tuple[int, int]:
        """Generation and lanes of the link that it is usually on: cards for mining are on risers of one lane."""
        return (1, 1) if self.mining else (self.pcie, self.lanes)

    def profile(self, pcie: int = 0, lanes: int = 0) -> DeviceProfile:
        """Its profile, at its own link or at the one that is given; `measured_s` 0 says that it was not measured."""
        pcie, lanes = pcie or self.pcie, lanes or self.lanes
        fp32, (with_fma, without) = 2 * self.cores * self.boost_mhz * _MEGA, self.slowed
        fp16 = FP16_TENSOR if self.of.fp16 >= _TENSOR else FP16
        link = lanes * LANE_BYTES_PER_S[pcie]
        operations = {FP32: fp32 * with_fma, fp16: fp32 * self.of.fp16, INT8: fp32 * self.of.int8}
        if without > with_fma:
            operations |= {FP32_SEPARATE: fp32 * without, FP16_SEPARATE: fp32 * without * self.of.fp16}
        decoded = {
            f"{codec} {size}": rate * self.of.decode * self.decoders
            for codec in self.of.codecs
            for size, rate in _DECODED.items()
            if self.decoders
        }
        return DeviceProfile(
            device=f"published-{re.sub(r'[^A-Za-z0-9]+', '-', self.name)}",
            kind="cuda",
            name=self.name,
            link=f"PCIe {pcie}.0 x{lanes}",
            measured_s=0.0,
            seconds=0.0,
            operations_per_s=operations,
            memory_bytes_per_s=self.memory_gb_per_s * _GIGA,
            to_device_bytes_per_s=link,
            from_device_bytes_per_s=link,
            decoders=self.decoders,
            decode_frames_per_s=decoded,
        )


@functools.cache
def published_cards() -> dict[str, PublishedCard]:
    """All cards by their names."""
    rows = parse_toml((resources.files("engines.profiling") / "cards.toml").read_bytes())
    generations = {name: Generation.model_validate(row) for name, row in rows["generation"].items()}
    cards = [PublishedCard.model_validate({**row, "of": generations[row["generation"]]}) for row in rows["card"]]
    return {card.name: card for card in cards}


def published_card(name: str) -> PublishedCard:
    """A card by its name, as people write it: `p106`, `3060ti`, `RTX 3060 Ti`. Raises UsageError."""
    cards = published_cards()
    if found := _name_among(list(cards), name):
        return cards[found]
    hint = did_you_mean(name, list(cards), "`rigflow simulate --cards` lists them")
    raise UsageError(f"no published figures of a card {name[:60]!a}", hint)


def card_named(name: str, measured: Iterable[DeviceProfile] = ()) -> tuple[DeviceProfile, int]:
    """The profile of a card and the bytes of its memory (0: unknown): `measured`, or else by published figures.

    Raises UsageError, with what there is of a similar name.
    """
    known = {profile.name: profile for profile in measured if profile.kind == "cuda"}
    if found := _name_among(list(known), name):
        return known[found], 0
    if found := _name_among(list(published_cards()), name):
        card = published_cards()[found]
        return card.profile(*card.usual_link), card.memory_bytes
    hint = did_you_mean(name, [*known, *published_cards()], "state its tflops; `rigflow simulate --cards` lists cards")
    raise UsageError(f"no figures of a card {name[:60]!a}", hint)


def _name_among(names: Sequence[str], written: str) -> str:
    """The name that is meant, of several the last one; empty where none is."""
    wanted = _plain(written)
    for short in (_plain, _without_family, _without_number):
        if found := [name for name in names if short(name) == wanted]:
            return found[-1]
    return ""


def _without_family(name: str) -> str:
    return re.sub("^(gtx|rtx|cmp)", "", _plain(name))


def _without_number(name: str) -> str:
    """P106 of P106-100, which is the usual one."""
    return _plain(name.partition("-")[0])


def _plain(name: str) -> str:
    return re.sub(
        r"[^a-z0-9]", "", name.lower().removeprefix("nvidia ").removeprefix("tesla ").removeprefix("geforce ")
    )

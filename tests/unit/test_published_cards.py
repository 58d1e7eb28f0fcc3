"""Published figures of GPUs: every row is sound, names are found as people write them, profiles are marked."""

import pytest

from engines.profiling.published import LANE_BYTES_PER_S, published_card, published_cards
from placement.fleet import assumed_card
from schemas.device_profile import FP32
from schemas.errors import UsageError


def test_every_card_is_plausible_and_marked_as_not_measured() -> None:
    cards = published_cards()
    assert len(cards) > 50
    for card in cards.values():
        profile = card.profile()
        assert profile.measured_s == 0.0
        assert 0.3e12 < profile.operations_per_s[FP32] < 120e12 or card.slowed[0] < 1
        assert 50e9 < profile.memory_bytes_per_s < 6e12
        assert 30 < card.watts < 800
        assert card.pcie in LANE_BYTES_PER_S
        assert card.lanes in (1, 4, 8, 16)
        assert bool(profile.decode_frames_per_s) == bool(card.decoders)
        assert profile.summary


@pytest.mark.parametrize(
    ("fp32", "name"),
    [
        (4.4e12, "P106-100"),
        (6.7e12, "P104-100"),
        (8.1e12, "T4"),
        (30.3e12, "L4"),
        (82.6e12, "RTX 4090"),
        (19.5e12, "A100"),
    ],
)
def test_rates_are_those_of_the_makers_own_tables(fp32: float, name: str) -> None:
    assert published_card(name).profile().operations_per_s[FP32] == pytest.approx(fp32, rel=0.02)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("p106", "P106-100"),
        ("P106-090", "P106-090"),
        ("nvidia p104-100", "P104-100"),
        ("3060", "RTX 3060"),
        ("3060 Ti", "RTX 3060 Ti"),
        ("rtx3060ti", "RTX 3060 Ti"),
        ("GTX 1060", "GTX 1060"),
        ("40hx", "CMP 40HX"),
        ("Tesla T4", "T4"),
        ("a10", "A10"),
    ],
)
def test_names_are_found_as_people_write_them(written: str, name: str) -> None:
    assert published_card(written).name == name


@pytest.mark.parametrize("name", ["", "RTX 30", "P10", "Radeon VII", "x" * 500])
def test_an_unknown_name_is_refused_and_no_card_is_guessed(name: str) -> None:
    with pytest.raises(UsageError, match="no published figures"):
        published_card(name)


def test_a_riser_has_the_rate_that_was_measured_on_one() -> None:
    profile = published_card("P106").profile(pcie=1, lanes=1)
    assert profile.to_device_bytes_per_s == pytest.approx(assumed_card().to_device_bytes_per_s, rel=0.1)
    assert profile.link == "PCIe 1.0 x1"


def test_fp16_of_pascal_is_never_worth_it_and_a_170hx_computes_without_fma() -> None:
    assert dict(published_card("P106").profile().rows())["fp16"].endswith("never")
    assert "slowed down" in dict(published_card("170HX").profile().rows())["multiply-add"]

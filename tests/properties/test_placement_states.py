"""Placement of fleets in any state: whatever was measured, and whatever was agreed before, no piece waits for ever."""

import random
from dataclasses import replace
from math import inf, isfinite, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.fleet_view import fleet_of
from placement.costs import StageWork, Work
from placement.fleet import Device, Fleet, Rig, assumed_cpu
from placement.groups import MOST_KINDS, groups
from placement.routes import Placement, Role, may_run
from placement.rules import place, rate_of
from tests.placed import card

NAMES = ("decode", "infer", "encode")
PACES = st.sampled_from((0.0, -1.0, nan, inf, 1e300, 1e9, 1e5, 5e-324, 1e-9, 1e-3, 1.0))
SOME = st.lists(st.sampled_from(NAMES), unique=True).map(tuple)
ROLES = st.builds(Role, SOME, SOME)


@st.composite
def devices(draw: st.DrawFn, rig: str, cores: int) -> Device:
    """A device that was measured to do anything, and may do anything."""
    profile = assumed_cpu(cores) if rig == "rig0" else card("card", 4, draw(st.sampled_from((0, 600))))
    return Device(
        f"{rig}-{draw(st.integers(0, 9))}",
        profile,
        draw(st.sampled_from((0, 0, 10, 10**9))),
        row_s=draw(st.dictionaries(st.just("m"), PACES)),
        frame_s=draw(st.dictionaries(st.tuples(st.just("work"), st.sampled_from(NAMES)), PACES)),
        hosts=draw(st.just(()) | SOME),
        declines=draw(st.sampled_from(((), (), ("other",), ("work",)))),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    rigs = []
    for number in range(draw(st.integers(0, 3))):
        name, cores = f"rig{number}", draw(st.sampled_from((1, 2)))
        found = draw(st.lists(devices(name, cores), max_size=2, unique_by=lambda device: device.name))
        link = draw(st.sampled_from((1.2e7, 1.2e9, 1e-6, 1e18)))
        rigs.append(Rig(name, cores, tuple(found), link_bytes_per_s=link))
    return Fleet(tuple(rigs))


@st.composite
def works(draw: st.DrawFn) -> Work:
    stages = (
        StageWork("decode", "decode", 100, 1280, 720, "h264", gives_bytes=draw(st.sampled_from((0.0, 6e5, 2.7e8)))),
        StageWork("infer", "infer", model="m", rows=4, operations=4e9, gives_bytes=1e4, model_bytes=1000),
        StageWork("encode", "encode", gives_bytes=1e5),
    )
    return Work("work", stages, draw(st.sampled_from((1, 60))), draw(st.sampled_from((0.0, 1e6))), frames=100)


def left_waiting(fleet: Fleet, work: Work, placed: Placement) -> list[str]:
    """Stages that some device may run, and none takes from the queue of."""
    left = []
    for stage in work.stages:
        roles = [placed.roles[each.name] for _, each in fleet.places() if may_run(work, stage, each)]
        if roles and not any(stage.name in role.runs and stage.name in role.takes for role in roles):
            left.append(stage.name)
    return left


@given(fleets(), works(), st.dictionaries(st.integers(0, 5), ROLES))
@settings(max_examples=60, deadline=None)
def test_each_stage_is_done_by_a_device_that_may(fleet: Fleet, work: Work, earlier: dict[int, Role]) -> None:
    names = [device.name for _, device in fleet.places()]
    before = {name: earlier.get(number, Role()) for number, name in enumerate(names)}
    for placed in (place(fleet, work), place(fleet, work, Placement("work", before, dict.fromkeys(names, ""), 1.0))):
        assert set(placed.roles) == set(names)
        assert left_waiting(fleet, work, placed) == []
        assert isfinite(placed.rate)
        assert place(fleet, work, placed) is placed or not placed.rate  # it does not change to and fro


def fleet_of_two(**of_second: object) -> tuple[Fleet, Work]:
    first = Device("a-0", card("a", 8, 600))
    second = replace(Device("b-0", card("b", 8, 600)), **of_second)  # type: ignore[arg-type]
    stages = (
        StageWork("decode", "decode", 100, 1280, 720, "h264", gives_bytes=1e6),
        StageWork("infer", "infer", model="m", rows=4, operations=4e9, gives_bytes=1e4),
        StageWork("encode", "encode", gives_bytes=1e5),
    )
    return Fleet((Rig("a", 2, (first,)), Rig("b", 2, (second,)))), Work("work", stages, 60, 1e6, 100)


@pytest.mark.parametrize("now", [{"hosts": ("decode",)}, {"declines": ("work",)}])
def test_a_device_that_may_not_infer_any_more_loses_its_role(now: dict[str, object]) -> None:
    fleet, work = fleet_of_two(**now)
    before = {"a-0": Role(("decode", "encode"), ("decode", "encode")), "b-0": Role(("infer",), ("infer",))}
    agreed = Placement("work", before, dict.fromkeys(before, ""), 10.0)
    assert rate_of(fleet, work, before) == 0.0
    assert "infer" in place(fleet, work, agreed).roles["a-0"].takes
    same, _ = fleet_of_two()
    assert rate_of(same, work, before) > 0.0


def test_a_pace_that_was_not_measured_is_estimated() -> None:
    fleet, work = fleet_of_two()
    for seconds in (0.0, nan, inf, 1e9):
        odd, _ = fleet_of_two(frame_s={("work", "infer"): seconds}, row_s={"m": seconds})
        assert place(odd, work) == place(fleet, work)


def test_a_device_declines_what_all_its_workers_decline() -> None:
    def workers(*declined: object) -> list[dict[str, object]]:
        common = {"rig": "r", "device": "cpu", "stages": ["all"]}
        return [{"worker": f"w{number}", "declined": each, **common} for number, each in enumerate(declined)]

    [(_, both)] = fleet_of(workers({"x": "why", "y": "why"}, {"x": "why"}), (), ()).places()
    assert both.declines == ("x",)
    [(_, one)] = fleet_of(workers({"x": "why"}, {}), (), ()).places()
    assert one.declines == ()


def work_of_models(count: int) -> Work:
    """Each model takes 6 bytes."""
    models = [
        StageWork(f"infer{number}", "infer", model=f"m{number}", rows=4, operations=4e9, gives_bytes=1e4, model_bytes=6)
        for number in range(count)
    ]
    decode = StageWork("decode", "decode", 100, 1280, 720, "h264", gives_bytes=1e6)
    return Work("work", (decode, *models, StageWork("encode", "encode", gives_bytes=1e5)), 60, 1e6, 100)


@pytest.mark.parametrize(("cards", "models"), [(2, 2), (8, 2), (8, 3), (3, 3)])
def test_equal_cards_of_one_rig_share_models_that_do_not_fit_together(cards: int, models: int) -> None:
    work = work_of_models(models)
    for rigs in (1, 3):
        fleet = Fleet(
            tuple(
                Rig(f"r{rig}", 2, tuple(Device(f"r{rig}-{at}", card("a", 8, 600), 10) for at in range(cards)))
                for rig in range(rigs)
            )
        )
        placed = place(fleet, work)
        assert placed.rate > 0.0
        assert left_waiting(fleet, work, placed) == []
        for role in placed.roles.values():
            assert sum(name.startswith("infer") for name in role.runs) <= 1
        assert place(fleet, work, placed) is placed


def test_cards_whose_paces_differ_a_little_are_of_one_kind() -> None:
    """Measured paces of equal cards are never equal; as many kinds as cards would take minutes to place."""
    chance = random.Random(1)

    def pace(card_s: float) -> dict[tuple[str, str], float]:
        return {("work", name): card_s * chance.uniform(0.95, 1.05) for name in work_of_models(1).names}

    rigs = [
        Rig(f"rig{rig}", 2, tuple(Device(f"rig{rig}-{at}", card("a", 8, 600), frame_s=pace(0.01)) for at in range(8)))
        for rig in range(30)
    ]
    slow = Rig("slow", 2, (Device("slow-0", card("a", 8, 600), frame_s=pace(0.03)),))
    fleet, work = Fleet((*rigs, slow)), work_of_models(1)
    kinds = groups(fleet, work)
    assert [(len(kind.rigs), kind.count) for kind in kinds] == [(30, 240), (1, 1)]
    placed = place(fleet, work)
    assert placed.rate == pytest.approx(sum(place(Fleet((rig,)), work).rate for rig in fleet.rigs), rel=0.01)
    assert len(set(placed.roles.values())) == 1


def test_a_fleet_of_many_different_machines_has_few_kinds() -> None:
    chance = random.Random(2)
    rigs = tuple(
        Rig(
            f"rig{at}",
            chance.choice((2, 4)),
            (Device(f"rig{at}-0", card("a", 2.0 ** chance.uniform(0, 4), chance.choice((0, 600)))),),
        )
        for at in range(200)
    )
    fleet, work = Fleet(rigs), work_of_models(1)
    assert len(groups(fleet, work)) <= MOST_KINDS
    assert left_waiting(fleet, work, place(fleet, work)) == []


def test_cards_that_share_their_models_are_no_kinds_of_their_own() -> None:
    """With as many kinds as are allowed, and two models that fit apart, a fast card is not taken for a slow one."""
    rigs = [
        Rig(f"r{at:02}", 2, tuple(Device(f"r{at:02}-{n}", card("a", 4, 100 * 1.4**at), 10) for n in range(2)))
        for at in range(12)
    ]
    kinds = groups(Fleet(tuple(rigs)), work_of_models(2))
    assert len(kinds) == 24
    assert all(len(kind.rigs) == 1 for kind in kinds)
    more = [
        replace(rig, name=f"x{rig.name}", cores=4, devices=tuple(replace(d, name=f"x{d.name}") for d in rig.devices))
        for rig in rigs
    ]
    kinds = groups(Fleet((*rigs, *more)), work_of_models(2))
    assert all(len(kind.rigs) == 1 for kind in kinds)


@pytest.mark.parametrize("link", [1.2e9, 1e4])
def test_models_that_do_not_fit_together_are_on_devices_of_their_own(link: float) -> None:
    """Also where the way between them takes longer than the models: no device has memory for both."""
    fleet = Fleet(
        tuple(
            Rig(name, 2, (Device(f"{name}-0", card(name, 8, 600), memory_bytes=10),), link_bytes_per_s=link)
            for name in ("a", "b")
        )
    )
    stages = (
        StageWork("decode", "decode", 100, 1280, 720, "h264", gives_bytes=1e6),
        StageWork("first", "infer", model="m", rows=4, operations=4e9, gives_bytes=1e4, model_bytes=6),
        StageWork("second", "infer", model="n", rows=4, operations=4e9, gives_bytes=1e4, model_bytes=6),
        StageWork("encode", "encode", gives_bytes=1e5),
    )
    placed = place(fleet, Work("work", stages, 60, 1e6, 100))
    assert placed.rate > 0.0
    models = [{"first", "second"} & {*role.runs} for role in placed.roles.values()]
    assert sorted(map(sorted, models)) == [["first"], ["second"]]

"""`rigflow plan`: operations and bytes of a pipeline, a fleet of a file, and what is said of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from cli.plan_text import bottleneck_in_words
from engines.media.medium import Input, SplitRequest
from engines.models.operations import operations
from engines.profiling.published import card_named
from engines.workload import media_facts, workload
from pipelines.fleet_view import fleet_of
from pipelines.registry import builtin_pipeline
from placement.costs import StageWork, Work, cost, frames_per_s
from placement.fleet import Device, Fleet, Rig, assumed_card, assumed_cpu
from placement.forecast import forecast
from placement.imagined import imagined_fleet
from placement.mix import best_mix
from placement.routes import Role
from placement.rules import place
from schemas.errors import UsageError
from schemas.fleet_file import parse_fleet
from schemas.model_profile import ModelOnDevice, ModelProfile
from tests.cli import rigflow
from tests.clips import Clip, generated
from tests.onnx_graphs import FLOAT, model_of, value
from workers.definitions import find_models

FLEET = """
[[rig]]
name = "mining"
cores = 2
  [[rig.card]]
  name = "P106-100"
  count = 8
  tflops = 4.4
  pcie = 2e8
  decode = { "h264 1280x720" = 700 }

[[rig]]
name = "server"
count = 2
cores = 16
network = 10e9
"""


@pytest.fixture(scope="module")
def film() -> Path:
    return generated(Clip(frames=250, gop=50))


def test_a_convolution_and_a_product_are_counted() -> None:
    graph = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("Flatten", ["y"], ["z"]),
            helper.make_node("Gemm", ["z", "m"], ["out"]),
        ],
        [value("x", FLOAT, ["W", 3, "H", "W"])],  # windows, and a width
        [value("out", FLOAT, ["N", 10])],
        (
            numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w"),
            numpy_helper.from_array(np.zeros((8 * 20 * 30, 10), np.float32), "m"),
        ),
    )
    assert operations(graph, {"H": 20, "W": 30}) == 2 * 8 * 20 * 30 * 27 + 2 * 8 * 20 * 30 * 10
    assert operations(b"no model", {}) == 0.0


def test_the_work_of_a_film(film: Path) -> None:
    spec = builtin_pipeline("fingerprint")
    facts = media_facts(spec, [Input(film, film.name)], SplitRequest(spec.grid, 2.0))
    work = workload(spec, find_models(spec, None), facts)
    assert (facts.pieces, round(facts.frames)) == (5, 250)
    assert work.names == ("decode", "resize", "infer", "encode")
    decode, _, infer, _ = work.stages
    assert (decode.frames, decode.codec) == (50, "h264")
    assert infer.rows == pytest.approx(2.0, rel=0.1)  # a window a second
    assert work.frames == 50  # as results count them, and workers their pace
    # pictures of 32 x 32 by two matrices of 8 x 32, as the model's graph has them
    assert infer.operations == 2 * (32 * 32 * 8 + 8 * 32 * 8) * 5
    assert work.piece_bytes * 5 == pytest.approx(film.stat().st_size, rel=0.3)


def test_a_sheet_of_shots_is_far_smaller_than_its_pictures_which_cross_the_link_of_a_card(film: Path) -> None:
    spec = builtin_pipeline("scenes")
    facts = media_facts(spec, [Input(film, film.name)], SplitRequest(spec.grid, 2.0))
    encode = workload(spec, find_models(spec, None), facts).stages[-1]
    assert encode.takes_bytes > 50 * 90 * 160 * 3
    assert encode.gives_bytes < 0.02 * encode.takes_bytes
    rig = Rig("a", 4, (Device("a-gpu0", assumed_card()),))
    there = cost(Work("scenes", (encode,)), encode, rig, rig.devices[0])
    assert there.link_s == pytest.approx(encode.takes_bytes / assumed_card().from_device_bytes_per_s)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[rig]]\ncores = 2", r"F, rig\.0\.name"),
        ("[[rig]]\nname = 'a'\ncores = 0", "cores"),
        ("rig = 3", "F, rig"),
        ("[[rig", "not TOML"),
    ],
)
def test_a_file_of_a_fleet_is_refused_by_field(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        parse_fleet(text, "F")


def test_a_fleet_of_a_file() -> None:
    fleet = imagined_fleet(parse_fleet(FLEET, "F"))
    assert [rig.name for rig in fleet.rigs] == ["mining", "server-1", "server-2"]
    assert [len(rig.devices) for rig in fleet.rigs] == [8, 1, 1]
    assert fleet.rigs[1].devices[0].workers == 16
    with pytest.raises(UsageError, match="nothing is known of a card 'K80'"):
        imagined_fleet(parse_fleet("[[rig]]\nname = 'a'\ncores = 2\n[[rig.card]]\nname = 'K80'", "F"))
    with pytest.raises(UsageError, match="two rigs are called a"):
        imagined_fleet(parse_fleet("[[rig]]\nname = 'a'\ncores = 2\n[[rig]]\nname = 'a'\ncores = 1", "F"))


def test_cards_of_a_file_have_published_figures_and_what_is_stated_beside_their_name() -> None:
    text = "[[rig]]\nname = 'a'\ncores = 2\n[[rig.card]]\nname = '{}'\n{}"

    def card(name: str, stated: str = "") -> Device:
        [(_, device)] = imagined_fleet(parse_fleet(text.format(name, stated), "F"), card_named).places()
        return device

    assert [card(name).profile.name for name in ("P4", "3060", "p106", "Tesla P40")] == [
        "P4",
        "RTX 3060",
        "P106-100",
        "P40",
    ]
    assert card("P106").memory_bytes == 6 << 30
    assert card("P106").profile.link == "PCIe 1.0 x1"  # as of `rigflow simulate --rigs`
    assert card("T4").profile.link == "PCIe 3.0 x16"
    stated = card("P106", 'pcie = 3e9\ndecode = { "h264 1280x720" = 700 }').profile
    assert (stated.to_device_bytes_per_s, stated.from_device_bytes_per_s, stated.link) == (3e9, 3e9, "")
    assert stated.decode_frames_per_s == {"h264 1280x720": 700.0}
    assert stated.operations_per_s == card("P106").profile.operations_per_s
    with pytest.raises(UsageError, match="no figures of a card 'P10'"):
        card("P10")


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ('decode = { "h264 1280x720" = -700 }', "greater than or equal to 0"),
        ('decode = { "h264" = 700 }', 'takes a codec and a size, such as "h264 1280x720"'),
        ('decode = { "h264 0x0" = 700 }', "takes a codec and a size"),
    ],
)
def test_rates_of_a_file_that_cannot_be_are_refused(stated: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_fleet(f"[[rig]]\nname = 'a'\ncores = 2\n[[rig.card]]\nname = 'P106'\n{stated}", "F")


def test_a_card_of_a_file_is_the_one_that_was_measured() -> None:
    measured = [assumed_card(name) for name in ("NVIDIA GeForce RTX 3060 Ti", "NVIDIA GeForce RTX 3060")]
    assert card_named("RTX 3060", [assumed_cpu(4), *measured])[0] is measured[1]
    assert card_named("3060 ti", measured)[0] is measured[0]
    assert card_named("P106", measured)[0].name == "P106-100"


def test_workers_of_one_rig_are_its_cores() -> None:
    done = [{"pipeline": "p", "stage": "infer", "frames": 100, "seconds": 2.0}]
    status = {"device": "cpu", "stages": ["all"], "host": "h", "cores": 4, "processor": "cpu-1", "done": done}
    workers = [{**status, "worker": f"r-cpu{number}", "rig": "r"} for number in range(3)]
    [rig] = fleet_of([*workers], [assumed_cpu(4).model_copy(update={"device": "cpu-1", "measured_s": 1.0})], []).rigs
    assert (rig.cores, rig.processor.measured_s) == (4, 1.0)
    [device] = rig.devices
    assert (device.name, device.workers, device.frame_s) == ("r-cpu", 3, {("p", "infer"): pytest.approx(0.02)})
    work = Work("p", (StageWork("infer", "infer", rows=10, operations=1e9),), frames=10)
    assert cost(work, work.stages[0], rig, device).core_s == pytest.approx(0.2)  # measured at work, before all else


def test_workers_that_share_a_gpu_are_one_device_whose_pace_is_that_of_all() -> None:
    """Each of them waits for the others: alone it would need a third of the seconds that it measures."""
    gpu = {"uuid": "GPU-1", "name": "P106-100", "memory_bytes": 6e9}
    status = {"device": "cuda:0", "stages": ["all"], "rig": "r", "cores": 4, "gpu": gpu}

    def pace_of(*seconds: float) -> float:
        each = [[{"pipeline": "p", "stage": "infer", "frames": 100, "seconds": taken_s}] for taken_s in seconds]
        workers = [{**status, "worker": f"r-gpu{number}", "done": done} for number, done in enumerate(each)]
        [(_, device)] = fleet_of(workers, [], []).places()
        return device.frame_s["p", "infer"]

    assert pace_of(2.0) == pytest.approx(0.02)
    assert pace_of(6.0, 6.0, 6.0) == pytest.approx(0.02)


def test_what_was_measured_with_another_driver_does_not_count() -> None:
    measured = assumed_card("P106-100").model_copy(update={"device": "GPU-1", "driver": "570", "measured_s": 1.0})
    what = ModelOnDevice(model="a" * 64, backend="onnxruntime", shapes={})
    given = {"device": "GPU-1", "device_name": "P106-100", "driver": "570", "measured_s": 1.0}
    model = ModelProfile(what=what, name="m@1", batch_s={1: 0.5}, **given)
    status = {"worker": "r-gpu0", "device": "cuda:0", "stages": ["all"], "rig": "r", "cores": 4, "done": []}

    def known(**driver: str) -> tuple[float, dict[str, float]]:
        worker = {**status, "gpu": {"uuid": "GPU-1", "name": "P106-100", "memory_bytes": 6e9, **driver}}
        [(_, device)] = fleet_of([worker], [measured], [model]).places()
        return device.profile.measured_s, dict(device.row_s)

    assert known(driver="570") == (1.0, {what.model: 0.5})
    assert known(driver="580") == (0.0, {})
    assert known() == (1.0, {what.model: 0.5})  # a worker of an earlier version does not send it


def test_one_more_is_tried_on_few_kinds_of_rigs_and_on_the_one_that_limits() -> None:
    rigs = [Rig(f"r{at}", 4, (Device(f"r{at}-0", assumed_card(f"card{at}"), hosts=("decode",)),)) for at in range(30)]
    last = Rig("z", 4, (Device("z-0", assumed_card("slow"), hosts=("infer", "encode")),))
    stages = (
        StageWork("decode", "decode", 10, 1280, 720, "h264", gives_bytes=1e5),
        StageWork("infer", "infer", model="m", rows=10, operations=1e12, gives_bytes=10.0),
        StageWork("encode", "encode", gives_bytes=10.0),
    )
    gains = forecast(Fleet((*rigs, last)), Work("p", stages, 100, 1e6, 10)).gains
    assert [gain.what for gain in gains] == ["one more slow in z"]
    assert gains[0].times == pytest.approx(2.0, rel=0.1)


def test_rates_follow_the_nearest_size() -> None:
    rates = {"h264 1280x720": 600.0, "h264 1920x1080": 300.0}
    assert frames_per_s(rates, "h264", 1920, 1080) == (300.0, True)
    assert frames_per_s(rates, "h264", 640, 360) == (2400.0, False)
    assert frames_per_s(rates, "av1", 640, 360) == (0.0, False)


def test_the_best_mix_of_ways() -> None:
    """Two ways that share a part: the cheaper one is used, and the other where a part of its own is free."""
    rate, rates = best_mix([{"a": 1.0}, {"a": 0.5, "b": 2.0}], {"a": 1.0, "b": 1.0})
    assert rates == pytest.approx([0.75, 0.5])
    assert rate == pytest.approx(1.25)
    assert best_mix([], {}) == (0.0, [])
    assert best_mix([{"a": 0.0}], {"a": 1.0}) == (0.0, [0.0])


def test_the_command_says_where_and_why(film: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    ended = rigflow("plan", "upscale2x", film, "--fleet", file, "--why")
    assert ended.returncode == 0, ended.stderr
    for words in ("decode", "mining-gpu0 and 7 more", "Predicted: ", "Bottleneck: "):
        assert words in ended.stdout, ended.stdout
    rows = [line for line in ended.stdout.splitlines() if line.split(" ")[0] in ("decode", "resize", "infer", "encode")]
    assert len(rows) >= 4
    assert max(map(len, rows)) <= 80
    assert all(row.rstrip().endswith("B") and "%" in row and "…" not in row for row in rows), ended.stdout
    file.write_text("[[rig]]\nname = 'small'\ncores = 1\n")
    small = rigflow("plan", "fingerprint", film, "--fleet", file, "--why", "--set", "decode.fps=25")
    assert "With one more core in small: 1.50 x." in small.stdout, small.stdout  # three segments: two rounds
    file.write_text(FLEET)
    short = rigflow("plan", "upscale2x", film, "--fleet", file)
    assert "server-1-cpu" in short.stdout
    assert "With one more" not in short.stdout
    narrow = rigflow("plan", "upscale2x", film, "--fleet", file, COLUMNS="80").stdout
    assert "…" not in narrow.partition("Predicted")[0], "which stages run where is whole"
    assert all(stage in narrow for stage in ("decode", "resize", "infer", "encode"))


def test_the_command_for_programs(film: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    told = json.loads(rigflow("plan", "scenes", film, "--fleet", file, "--json").stdout)
    assert told["finish_s"] > 0
    assert told["segments"] > 1
    assert told["bottleneck"]
    assert set(told["roles"]) == {f"mining-gpu{number}" for number in range(8)} | {"server-1-cpu", "server-2-cpu"}
    assert told["measured"] is None


def test_what_cannot_be_planned(film: Path, tmp_path: Path) -> None:
    assert "check the path" in rigflow("plan", "scenes", film, "--fleet", tmp_path / "none.toml").stderr
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    assert "leave out --fleet" in rigflow("plan", "scenes", film, "--fleet", file, "--job", "x").stderr
    assert rigflow("plan", "scenes", tmp_path / "no.mp4", "--fleet", file).returncode == 2


def test_a_device_runs_no_stage_that_its_settings_leave_out() -> None:
    """A rig that may only decode and encode gives its planes to the card of another."""
    stages = (
        StageWork("decode", "decode", 50, 1280, 720, "h264", gives_bytes=1e6),
        StageWork("infer", "infer", model="m", rows=50, operations=1e9, gives_bytes=1e4),
        StageWork("encode", "encode", gives_bytes=1e4),
    )
    ends = Rig("ends", 16, (Device("ends-cpu", assumed_cpu(16), workers=16, hosts=("decode", "encode")),))
    middle = Rig("middle", 2, (Device("middle-0", assumed_card(), hosts=("infer",)),))
    placed = place(Fleet((ends, middle)), Work("p", stages, 10, 1e6, 50))
    assert placed.roles["ends-cpu"] == Role(("decode", "encode"), ("decode", "encode"))
    assert placed.roles["middle-0"] == Role(("infer",), ("infer",))
    assert place(Fleet((ends,)), Work("p", stages, 10, 1e6, 50)).rate == 0.0


def test_models_that_do_not_fit_together_are_kept_apart() -> None:
    stages = (
        StageWork("decode", "decode", 50, 1280, 720, "h264", gives_bytes=1e6),
        StageWork("one", "infer", model="m", rows=50, operations=1e9, gives_bytes=1e4, model_bytes=3 << 30),
        StageWork("two", "infer", model="n", rows=50, operations=1e9, gives_bytes=1e4, model_bytes=3 << 30),
        StageWork("encode", "encode", gives_bytes=1e4),
    )
    cards = tuple(Device(f"r-{number}", assumed_card(f"card {number}"), memory_bytes=4 << 30) for number in range(2))
    first = replace(cards[0], row_s={"m": 0.001, "n": 0.02})
    placed = place(Fleet((Rig("r", 8, (first, cards[1])),)), Work("p", stages, 10, 1e6, 50))
    assert placed.rate > 0.0
    assert all(len({"one", "two"} & set(role.runs)) == 1 for role in placed.roles.values())


def test_one_segment_takes_as_long_as_it_takes_by_itself(film: Path) -> None:
    """However many cards share the cores that limit them; and that cores are full says that their workers are."""
    spec = builtin_pipeline("upscale2x")
    facts = media_facts(spec, [Input(film, film.name)], SplitRequest(spec.grid, 60.0))
    work = workload(spec, find_models(spec, None), facts)
    assert work.pieces == 1
    mining = imagined_fleet(parse_fleet(FLEET, "F"))
    predicted = forecast(Fleet(mining.rigs[:1]), work, with_gains=False)
    assert predicted.finish_s == pytest.approx(predicted.first_s)
    full = ("cores a", "pieces a-cpu", "thread a-cpu", "thread b-gpu0")
    assert bottleneck_in_words(full) == "the cores of a, the computing thread of b-gpu0"

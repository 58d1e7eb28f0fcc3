"""That the benchmarks run and hold answers against each other; nothing here is about time."""

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from benchmarks import backends
from benchmarks.answers import difference
from benchmarks.chain import Task, segments_of
from benchmarks.contest import Order
from benchmarks.pairs import pairs
from benchmarks.peers import CONTESTANTS, make_peer
from benchmarks.records import Records
from benchmarks.runner import Runner
from benchmarks.workloads import Sizes
from engines.media import split
from engines.media.medium import Input
from pipelines import publish
from schemas.settings import Settings
from tests.clips import real_clip
from tests.compact import compact
from tests.onnx_graphs import FLOAT, model_of, value

FEW = Sizes(long_s=4.0, images=2, clips=2, small=1, small_s=4.0)


def test_contestants_answer_like_the_script_or_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    runner = Runner(tmp_path, results, limit_s=120.0)
    order = Order("script", "scenes", (("small", 1),), str(tmp_path), "", sizes=FEW, reference=True)
    (reference,) = runner.contest(order, "reference")
    (pool,) = runner.contest(replace(order, contestant="pool", reference=False), "timed", round=0)
    assert pool["items"] == reference["items"] == 120
    assert pool["answers"] == reference["answers"]
    assert pool["rate"] > 0
    assert pool["peak_bytes"] > 0

    (table,) = (tmp_path / "reference" / "scenes" / "small").glob("*.jsonl")
    row = json.loads(table.read_text())
    table.write_text(json.dumps({**row, "end": row["end"] + 1}) + "\n")
    assert not runner.contest(replace(order, contestant="pool", reference=False), "timed", round=0)
    monkeypatch.setattr("benchmarks.runner.find_spec", lambda name: None)
    assert not runner.contest(replace(order, contestant="mosec", reference=False), "timed", round=0)
    skipped = [json.loads(line) for line in results.read_text().splitlines()][-2:]
    assert "answers scenes of small differently from the script" in skipped[0]["why"]
    assert skipped[1]["why"] == "mosec is not installed"
    assert "mosec is left out of scenes of small: mosec is not installed" in capfd.readouterr().out


class _Answering:
    """A runner whose contestants answer at once; the pool fails the second time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def contest(self, order: Order, kind: str) -> list[dict[str, Any]]:
        self.asked.append(order.contestant)
        fails = order.contestant == "pool" and self.asked.count("pool") == 2
        return [] if fails else [{"rate": len(self.asked), "cpu_s_per_1000": 1.0}]


def test_pairs_are_measured_in_turn_and_only_whole_ones_count(tmp_path: Path) -> None:
    runner: Any = _Answering(tmp_path)
    options = Namespace(peer="pool", workload="images", pipeline="fingerprint", rounds=3, repeats=1, images=5)
    found = list(pairs(runner, options))
    assert runner.asked == ["script", "pool", "rigflow", "rigflow", "pool", "pool", "rigflow"]
    assert [(mine["rate"], other["rate"]) for mine, other in found] == [(3, 2), (7, 6)]


def test_answers_differ_by_shape_name_or_number() -> None:
    given = {"a.npz/descriptor": np.zeros((3, 4))}
    assert not difference(given, {"a.npz/descriptor": np.full((3, 4), 1e-5)})
    assert "off by up to 0.1" in difference(given, {"a.npz/descriptor": np.full((3, 4), 0.1)})
    assert "has shape [3, 4], not [2, 4]" in difference(given, {"a.npz/descriptor": np.zeros((2, 4))})
    assert "on one side only" in difference(given, {"b.npz/descriptor": np.zeros((3, 4))})


def test_more_rounds_go_on_with_the_settings_that_were_kept(tmp_path: Path) -> None:
    tried = [{"kind": "sweep", "contestant": "pool", "options": {"workers": n}, "rate": 10.0 - n} for n in (3, 2, 4)]
    timed = [{"kind": "timed", "contestant": "pool", "pipeline": "fingerprint", "round": n} for n in (0, 1)]
    other = {"kind": "timed", "contestant": "pool", "pipeline": "scenes", "round": 7}
    (tmp_path / "records.jsonl").write_text("\n".join(json.dumps(line) for line in [*tried, *timed, other]))
    found = Records.read(tmp_path / "records.jsonl")
    assert found.kept() == {"pool": {"workers": 2}}
    assert found.rounds == 2
    assert Records([]).rounds == 0


def test_backends_are_held_against_each_other_or_say_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, erf = tmp_path / "runs.onnx", helper.make_node("Erf", ["input"], ["output"])
    shapes = [value(name, FLOAT, ["n", 3, "h", "w"]) for name in ("input", "output")]
    runs.write_bytes(compact(1))
    (tmp_path / "refused.onnx").write_bytes(model_of([erf], shapes[:1], shapes[1:]))
    assert backends.main([str(runs), str(tmp_path / "refused.onnx"), "--size", "12", "14", "--rounds", "1"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert 0 < first["ncnn"]["far"] < 1e-4
    assert min(first[name]["cpu_s"] for name in ("onnxruntime", "ncnn")) > 0
    assert second["onnxruntime"]["gain"] == 1
    assert "Erf is not among the operations" in second["ncnn"]


def test_every_contestant_that_needs_nothing_can_be_made() -> None:
    from benchmarks.chain import Task

    for name, contestant in CONTESTANTS.items():
        if not contestant.needs:
            make_peer(name, Task("fingerprint", ""), {})


def _noted(opened: list[str], name: str, real: Callable[..., Any], *given: Any, **named: Any) -> Any:
    opened.append(name)
    return real(*given, **named)


@pytest.mark.parametrize("pipeline", ["fingerprint", "upscale2x"])
def test_peers_are_given_segments_that_are_cut_as_rigflow_cuts_them(pipeline: str, tmp_path: Path) -> None:
    """Cutting them with their sound takes 20 ms more a film, and rigflow cuts them without, where no output has it."""
    spec, film = Task(pipeline, str(tmp_path)).spec, real_clip("bigbuckbunny")
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as watched:
        for name in ("open_media", "open_picture"):
            real = getattr(split, name)
            watched.setattr(split, name, partial(_noted, opened, name, real))
        theirs = [bodies for _, bodies in segments_of(film, spec, spec.segment_s)]
        by_peers, opened[:] = list(opened), []
        ours = [each.buffers for each in publish.segments_of(Settings(), spec, "video", [Input(film, film.name)])]
    assert by_peers == opened
    assert [tuple(map(bytes, each)) for each in theirs] == [tuple(map(bytes, each)) for each in ours]

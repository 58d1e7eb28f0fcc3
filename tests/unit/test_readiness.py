"""Where a model is ready, by what workers say of themselves."""

import pytest

pytest.importorskip("fastapi")

from benchmarks.fleet import simulated
from gateway.api.readiness import places


def test_workers_without_the_stage_are_left_out_and_the_others_say_why_they_are_not_ready() -> None:
    spec = simulated()
    [model] = {stage.model for stage in spec.operators if stage.model}
    base = {"device": "cpu", "gpu": {}, "why": "", "declined": {}}
    workers = [
        base | {"worker": "a", "stages": ["all"]},
        base | {"worker": "b", "stages": ["decode"]},
        base | {"worker": "c", "stages": ["infer"], "why": f"other: no; {spec.name}: its engines are being loaded"},
        base
        | {"worker": "d", "stages": ["all"], "declined": {spec.name: "needs onnxruntime"}, "gpu": {"name": "P104"}},
        base | {"worker": "e", "stages": ["all"], "why": "other: no"},
    ]
    found = [(each.worker, each.ready, each.why, each.gpu) for each in places(str(model), [spec], workers)]
    assert found == [
        ("a", True, "", ""),
        ("c", False, "its engines are being loaded", ""),
        ("d", False, "needs onnxruntime", "P104"),
        ("e", True, "", ""),
    ]
    assert not [*places("nothing", [spec], workers)]

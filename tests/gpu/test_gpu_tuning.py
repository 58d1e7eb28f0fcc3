"""Options of a real session on a GPU: each is measured or refused in words, and the chosen one passes its test."""

from pathlib import Path

import pytest

from benchmarks.upscale import CARD, random_network
from engines.machine import gpus
from engines.models.catalogue import load_model
from engines.profiling.apart import Task, tune_apart
from engines.profiling.batches import shapes_of
from schemas.settings import Settings

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_an_upscaler_is_tuned(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "upscaler.onnx"
    path.write_bytes(random_network())
    path.with_suffix(".toml").write_text(CARD.format(96, 128))
    card, model = load_model(path)
    settings = Settings.model_validate({"precision": precision, "cache": str(tmp_path)})
    lines: list[str] = []
    tuned = tune_apart(Task(model, card, "cuda:0", settings, shapes_of(card, {}), 20.0), lines.append)
    assert len(lines) == len(tuned.tried) > 2
    assert all(trial.seconds or trial.refused for trial in tuned.tried)
    chosen = next(trial for trial in tuned.tried if trial.options == tuned.chosen)
    assert not chosen.refused
    if precision == "auto":
        assert {trial.options.precision for trial in tuned.tried} == {""}
    elif gpus()[0].capability >= (8, 0):
        assert any(trial.options.kernels and not trial.refused for trial in tuned.tried)

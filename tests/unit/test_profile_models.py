"""`rigflow profile MODEL`: what a model costs on this machine's processor, measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from engines.backends.onnxruntime import OnnxRuntime
from engines.models.catalogue import builtin_model
from engines.profiling.store import kept_model_profiles
from schemas.model_profile import ComputeOptions, ModelProfile
from schemas.settings import Settings
from tests.cli import rigflow

HOST = SimpleNamespace(gpu=None)


def test_a_real_model_on_the_processor_keeps_its_bits(tmp_path: Path) -> None:
    ended = rigflow("profile", "shotchange", "cpu", "--seconds", "1", "--json", RIGFLOW_CACHE=str(tmp_path))
    [profile] = [ModelProfile.model_validate(each) for each in json.loads(ended.stdout)]
    card, model = builtin_model("shotchange")
    assert kept_model_profiles(tmp_path, card.identity) == [profile]
    assert profile.device.startswith("cpu-")
    assert len(profile.tried) >= 2
    backend, device = OnnxRuntime(Settings()), HOST
    rows = np.random.default_rng(1).integers(0, 256, (5, 2, 90, 160, 3), np.uint8)
    sessions = [backend.open_with(model, card, device, options) for options in (ComputeOptions(), profile.chosen)]  # type: ignore[arg-type]
    plain, chosen = (session.run({card.inputs[0].name: rows}) for session in sessions)
    assert {name: each.tobytes() for name, each in plain.items()} == {n: each.tobytes() for n, each in chosen.items()}
    refused = rigflow("profile", "no-such-model", "cpu", RIGFLOW_CACHE=str(tmp_path))
    assert refused.returncode != 0
    assert len(refused.stderr.strip().splitlines()) <= 2

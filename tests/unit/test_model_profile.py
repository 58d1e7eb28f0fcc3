"""What a model costs on a device: the schema, and the seconds of batches that were not measured."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.model_profile import ComputeOptions, ModelChoice, ModelOnDevice, ModelProfile, Trial

WHAT = ModelOnDevice(model="a" * 64, backend="onnxruntime", shapes={"x": (3, 32, 32)})


def profile(batch_s: dict[int, float], **fields: object) -> ModelProfile:
    """A profile with these seconds of batches."""
    given = {"device": "GPU-1", "device_name": "a GPU", "what": WHAT, "name": "net@1", "measured_s": 5.0}
    return ModelProfile.model_validate({**given, "batch_s": batch_s, **fields})


def test_seconds_of_a_batch_lie_between_those_that_were_measured() -> None:
    known = profile({1: 0.01, 4: 0.016, 16: 0.04})
    assert known.seconds_of(1) == 0.01
    assert known.seconds_of(2) == pytest.approx(0.012)
    assert known.seconds_of(16) == 0.04
    assert known.seconds_of(32) == pytest.approx(0.08)
    assert profile({8: 0.1}).seconds_of(1) == 0.1
    assert (known.best_rows, known.rows_per_s) == (16, pytest.approx(400))


@given(
    st.dictionaries(st.integers(1, 4096), st.floats(1e-6, 1e3), min_size=1, max_size=16),
    st.integers(1, 8192),
)
def test_seconds_of_a_batch_are_within_the_measured_ones(batch_s: dict[int, float], rows: int) -> None:
    seconds = profile(batch_s).seconds_of(rows)
    most = max(batch_s)
    scale = max(1.0, rows / most)
    assert min(batch_s.values()) * 0.999 <= seconds <= max(batch_s.values()) * scale * 1.001


def test_a_profile_survives_json_and_has_its_key() -> None:
    trial = Trial(options=ComputeOptions(precision="fp16", layout="nhwc", batch=16), rows=16, seconds=0.02, error=1e-3)
    made = profile({1: 0.01, 16: 0.04}, tried=(trial,), chosen=trial.options)
    assert ModelProfile.model_validate_json(made.model_dump_json()) == made
    assert made.key == f"model.GPU-1.{WHAT.key}"
    assert str(made.chosen) == "fp16, NHWC, batch 16"
    assert str(ComputeOptions()) == "defaults"
    assert str(ComputeOptions(graph=True)) == "CUDA graph"
    assert not ComputeOptions.model_validate_json('{"layout": "nhwc", "kernels": false}').graph  # of earlier versions
    assert trial.row_s == pytest.approx(0.00125)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_s": {}},
        {"batch_s": {"0": 0.1}},
        {"batch_s": {"1": 0}},
        {"batch_s": {"1": "NaN"}},
        {"batch_s": {str(rows): 0.1 for rows in range(1, 18)}},
        {"device": "a.b"},
        {"device": "*"},
        {"what": {"model": "../x", "backend": "onnxruntime", "shapes": {}}},
        {"what": {"model": "a" * 64, "backend": "onnxruntime", "shapes": {"x": [0]}}},
        {"what": {"model": "a" * 64, "backend": "onnxruntime", "shapes": {"x": [1] * 9}}},
        {"version": 2},
        {"source": "a guess"},
        {"more": 1},
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    good = json.loads(profile({1: 0.01}).model_dump_json())
    assert ModelProfile.model_validate_json(json.dumps(good)).key
    with pytest.raises(ValidationError):
        ModelProfile.model_validate_json(json.dumps(good | wrong))


def test_the_key_of_a_choice_is_of_the_kind_of_device_and_not_of_one_device() -> None:
    def key(**other: object) -> str:
        basis = {"kind": "a GPU", "what": WHAT, "library": "1.31", "options": ComputeOptions(), "measured_s": 1.0}
        return ModelChoice.model_validate(basis | other).key

    assert key() == key(options=ComputeOptions(layout="nhwc"), measured_s=2.0)
    other_model = WHAT.model_copy(update={"model": "b" * 64})
    keys = {key(), key(kind="another"), key(library="1.32"), key(allowed="tf32"), key(what=other_model)}
    assert len(keys) == 5
    with pytest.raises(ValidationError):
        key(kind="")

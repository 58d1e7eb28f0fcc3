"""Samplers beside answers in closed form: data that is one point, and data that is normal."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from engines.diffusion.choice import NAMES, SAMPLERS, sampler_of
from engines.diffusion.drawing import Sketch
from engines.diffusion.samplers import Sampler
from engines.diffusion.schedule import ScheduleConfig, levels_of, read_config
from engines.part import Array
from schemas.errors import ModelError, PipelineError

ORDERED = ("ddim", "euler", "dpmpp-2m", "dpmpp-2m-karras", "unipc")  # all that follow one curve without noise


def config(**fields: Any) -> ScheduleConfig:
    return read_config(json.dumps({"steps_offset": 1, "clip_sample": False, **fields}).encode(), "m")


def drawn(sampler: Sampler, predict: Any, noise: Array, begin: int = 0, begins_with: Array | None = None) -> Array:
    """What a sampler makes of `predict(latents, alpha)`, which gets latents of size 1 and their share of signal."""
    alphas = levels_of(sampler._config).alphas
    latents = noise * np.float32(sampler.first_scale) if begins_with is None else begins_with
    rng = np.random.default_rng(9)
    for step in range(begin, len(sampler.timesteps)):
        seen = sampler.seen(latents, step)
        alpha = float(np.exp(np.interp(sampler.timesteps[step], np.arange(len(alphas)), np.log(alphas))))
        draws = rng.standard_normal(noise.shape).astype(np.float32)
        latents = sampler.next(latents, predict(seen, alpha).astype(np.float32), step, lambda made=draws: made)
    return latents


def of_point(kind: str, point: Array) -> Any:
    """The exact prediction where all data is one point."""

    def predict(seen: Array, alpha: float) -> Array:
        epsilon = (seen - alpha**0.5 * point) / (1 - alpha) ** 0.5
        return {"epsilon": epsilon, "v_prediction": alpha**0.5 * epsilon - (1 - alpha) ** 0.5 * point, "sample": point}[
            kind
        ]

    return predict


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_finds_the_only_point_there_is(name: str, kind: str) -> None:
    noise = np.random.default_rng(5).standard_normal((2, 4, 4)).astype(np.float32)
    point = np.random.default_rng(6).uniform(-1, 1, noise.shape).astype(np.float32)
    spacings = ("leading", "trailing", "linspace")
    for spacing in spacings[:1] if name == "pndm" else spacings:  # pndm moves by even steps, which others have not
        made = config(prediction_type=kind, timestep_spacing=spacing, set_alpha_to_one=True)
        if kind not in SAMPLERS[name.removesuffix("-karras")].predictions:
            with pytest.raises(PipelineError, match="cannot be used with a model that predicts"):
                sampler_of(made, name, 4)
            continue
        sampler = sampler_of(made, name, 12)
        found = drawn(sampler, of_point(kind, point), noise)
        assert found.dtype == np.float32
        # the first timesteps of leading spacing have noise that plain noise does not match; lcm keeps a share of it
        assert np.abs(found - point).max() < (0.02 if name in ("lcm", "pndm") else 2e-3), (spacing, name)


def of_normal(spread: float) -> Any:
    """The exact noise where data is normal of a standard deviation: the best linear guess."""

    def predict(seen: Array, alpha: float) -> Array:
        return np.asarray(seen * (1 - alpha) ** 0.5 / (alpha * spread**2 + 1 - alpha))

    return predict


def error_of(name: str, steps: int) -> float:
    """How far a sampler ends from the curve's own end, where data is normal."""
    sampler = sampler_of(config(timestep_spacing="trailing", set_alpha_to_one=True), name, steps)
    noise, spread = np.linspace(-2, 2, 16, dtype=np.float32).reshape(1, 4, 4), 0.7
    alphas = levels_of(sampler._config).alphas
    timestep = sampler.timesteps[0]
    alpha = float(np.exp(np.interp(timestep, np.arange(len(alphas)), np.log(alphas))))
    sigma = ((1 - alpha) / alpha) ** 0.5
    begins = sampler.noisy(np.zeros_like(noise), noise, 0)
    found = drawn(sampler, of_normal(spread), noise, begins_with=begins)
    # dx/dsigma = sigma x / (spread^2 + sigma^2), for x = picture + sigma * noise
    expected = sigma * noise * spread / (spread**2 + sigma**2) ** 0.5
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("name", ORDERED)
def test_more_steps_come_nearer_to_the_curve(name: str) -> None:
    coarse, fine = error_of(name, 20), error_of(name, 80)
    assert fine < 0.05
    assert coarse / fine > 2.5, (coarse, fine)


def test_solvers_of_second_order_are_nearer_than_those_of_first_order() -> None:
    first = min(error_of(name, 20) for name in ("ddim", "euler"))
    assert error_of("dpmpp-2m", 20) < first / 2
    assert error_of("unipc", 20) < first / 2


def test_a_picture_that_begins_with_another_has_the_noise_of_that_step() -> None:
    rng = np.random.default_rng(4)
    noise, picture = (rng.standard_normal((1, 4, 4)).astype(np.float32) for _ in range(2))
    for name in NAMES:
        for begin in (1, 5, 9):
            sampler = sampler_of(config(set_alpha_to_one=True), name, 10)
            begins = sampler.noisy(picture, noise, begin)
            found = drawn(sampler, of_point("epsilon", picture), noise, begin=begin, begins_with=begins)
            assert np.abs(found - picture).max() < 0.02, (name, begin)


def test_timesteps_are_spaced_as_the_file_says() -> None:
    def of(name: str, spacing: str, steps: int = 4) -> list[float]:
        return list(sampler_of(config(timestep_spacing=spacing), name, steps).timesteps)

    assert of("ddim", "leading") == [751, 501, 251, 1]
    assert of("ddim", "trailing") == [999, 749, 499, 249]
    assert of("ddim", "linspace") == [999, 666, 333, 0]
    assert of("dpmpp-2m", "leading") == [801, 601, 401, 201]
    assert of("unipc", "linspace") == [999, 749, 500, 250]
    assert of("pndm", "leading") == [751, 501, 501, 251, 1]
    assert of("lcm", "leading") == [999, 759, 499, 259]
    assert of("euler", "linspace", 1) == [0]


@pytest.mark.parametrize(
    ("name", "steps", "text"),
    [
        ("ddim", 0, "0 steps are not possible with ddim"),
        ("ddim", 1001, "1001 steps are not possible"),
        ("lcm", 51, "51 steps are not possible with lcm"),
        ("magic", 4, "there is no scheduler magic"),
        ("ddim-karras", 4, "there is no scheduler ddim-karras"),
        ("", 4, "the model's scheduler is HeunDiscreteScheduler"),
    ],
)
def test_what_is_not_possible_is_said(name: str, steps: int, text: str) -> None:
    with pytest.raises(PipelineError, match=text):
        sampler_of(config(_class_name="HeunDiscreteScheduler"), name, steps)


@pytest.mark.parametrize(
    "fields",
    [
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
        {"_class_name": "UniPCMultistepScheduler", "predict_x0": False},
    ],
)
def test_a_way_that_a_scheduler_lacks_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match="which rigflow does not have"):
        sampler_of(config(**fields), "", 4)
    sampler_of(config(**fields), "ddim", 4)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"no json", "scheduler_config.json: "),
        (b"[]", "scheduler_config.json"),
        (b'{"beta_start": "NaN"}', "beta_start"),
        (b'{"num_train_timesteps": 100000000}', "num_train_timesteps"),
        (b'{"thresholding": true}', "has thresholding, which rigflow does not have"),
        (b'{"prediction_type": "flow_prediction"}', "prediction_type"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        read_config(data, "m")


def moved(sampler: Sampler, count: int = 4) -> Sketch:
    """A picture after the first steps, of a network that says nothing but 1."""
    ones = np.ones((1, 4, 2, 2), np.float32)
    sketch = Sketch(0, sampler, ones * np.float32(sampler.first_scale), 0, {}, None, [])
    for _ in range(min(count, len(sampler.timesteps))):
        sketch.move(ones, "m")
    return sketch


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_steps_is_a_picture_or_one_line(name: str) -> None:
    for steps in (1, 2, 3, 50, 998, 999, 1000):
        with contextlib.suppress(PipelineError, ModelError):
            assert np.isfinite(moved(sampler_of(config(timestep_spacing="leading"), name, steps)).latents).all()


def test_steps_that_a_schedule_has_no_noise_for_are_refused() -> None:
    with pytest.raises(PipelineError, match="1000 steps of ddim begin or end outside of the model's 1000: take fewer"):
        sampler_of(config(timestep_spacing="leading"), "ddim", 1000)
    with pytest.raises(PipelineError, match="4 steps of lcm begin or end outside of the model's 10"):
        sampler_of(config(num_train_timesteps=10), "lcm", 4)
    with pytest.raises(ModelError, match="a step without signal or without noise: take another scheduler"):
        moved(sampler_of(config(rescale_betas_zero_snr=True, timestep_spacing="trailing"), "pndm", 2))
    with pytest.raises(ModelError, match="json: it has 2 trained_betas, not 1000: download it again"):
        config(trained_betas=[0.1, 0.2])

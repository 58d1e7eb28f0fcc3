"""Samplers and pictures beside those of diffusers, step by step."""

import json
from typing import Any

import numpy as np
import pytest

from engines.diffusion.choice import own_sampler, sampler_of
from engines.diffusion.schedule import read_config

# PyTorch and diffusers warn; a busy machine takes minutes
pytestmark = [pytest.mark.models, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
CLASSES = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
}
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"final_sigmas_type": "sigma_min"},
    {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
    {"rescale_betas_zero_snr": True},
    {"solver_order": 3},
    {"solver_order": 1},
    {"solver_type": "bh1"},
    {"solver_type": "heun"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"clip_sample": False, "set_alpha_to_one": False},
    {"interpolation_type": "log_linear"},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {"euler_at_final": True},
)
STEPS = ((1, 0), (2, 0), (4, 0), (7, 3), (20, 0), (30, 12), (50, 0))  # steps, and where a picture begins
_NOISES = ("scheduling_euler_ancestral_discrete", "scheduling_lcm", "scheduling_dpmsolver_multistep")


def network(latents: Any, timestep: float) -> Any:
    """A smooth answer for any latents."""
    return np.tanh(0.7 * latents + np.float32(0.001 * timestep)) * np.float32(0.9) + np.float32(0.05) * latents


def apart(monkeypatch: pytest.MonkeyPatch, name: str, fields: dict[str, Any], steps: int, begin: int) -> float:
    """How far the latents are from those of diffusers at the worst step, of the largest value there is."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.set_num_threads(1)  # threads that wait for each other take ten times as long on a busy machine
    theirs = getattr(diffusers, CLASSES[name])(**{**STABLE, **fields})
    text = json.dumps({**theirs.config, "_class_name": CLASSES[name]})
    config = read_config(text.encode(), "m")
    assert own_sampler(config) == name
    ours = sampler_of(config, "", steps)
    theirs.set_timesteps(steps)
    assert np.abs(theirs.timesteps.numpy() - ours.timesteps).max() < 1e-3
    rng = np.random.default_rng(0)
    noise, picture = (rng.standard_normal((1, 4, 8, 8)).astype(np.float32) for _ in range(2))
    if begin:
        if hasattr(theirs, "set_begin_index"):
            theirs.set_begin_index(begin)
        a = theirs.add_noise(torch.tensor(picture), torch.tensor(noise), theirs.timesteps[begin : begin + 1])
        b = ours.noisy(picture, noise, begin)
    else:
        a, b = torch.tensor(noise) * theirs.init_noise_sigma, noise * np.float32(ours.first_scale)
    worst, largest = float(np.abs(a.numpy() - b).max()), max(1.0, float(np.abs(b).max()))
    for step in range(begin, len(ours.timesteps)):
        timestep, drawn = theirs.timesteps[step], rng.standard_normal(noise.shape).astype(np.float32)
        for module in _NOISES:
            path = f"diffusers.schedulers.{module}.randn_tensor"
            monkeypatch.setattr(path, lambda *_, made=drawn, **__: torch.tensor(made))
        seen = theirs.scale_model_input(a, timestep).numpy()
        a = theirs.step(torch.tensor(network(seen, float(timestep))), timestep, a, return_dict=False)[0]
        b = ours.next(b, network(ours.seen(b, step), float(ours.timesteps[step])), step, lambda made=drawn: made)
        assert b.dtype == np.float32
        worst, largest = max(worst, float(np.abs(a.numpy() - b).max())), max(largest, float(np.abs(b).max()))
    return worst / largest


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", CLASSES)
def test_samplers_are_diffusers_own(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    if kind == "sample" and name in ("euler-a", "pndm"):
        pytest.skip("diffusers has no such scheduler")
    known = set(getattr(diffusers, CLASSES[name])().config)
    counted = 0
    for options in OPTIONS:
        if not set(options) <= known or (options.get("solver_order") == 3 and name != "unipc"):
            continue
        if "rescale_betas_zero_snr" in options and kind == "epsilon":
            continue  # noise alone says nothing of a picture
        for spacing in ("leading",) if name == "lcm" else ("leading", "trailing", "linspace"):
            fields = {"prediction_type": kind, "timestep_spacing": spacing, **options}
            fields |= {"steps_offset": 1} if spacing == "leading" else {}
            fields |= {"skip_prk_steps": True} if name == "pndm" else {}
            for steps, begin in STEPS:
                if name == "pndm" and begin:
                    continue  # there diffusers takes the second step for the repeated first one
                found = apart(monkeypatch, name, fields, steps, begin)
                assert found < 1e-5, (name, fields, steps, begin, found)
                counted += 1
    assert counted >= 7

"""Samplers and pictures beside those of diffusers, step by step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.diffusion.choice import own_sampler, sampler_of
from engines.diffusion.drawing import Drawing
from engines.diffusion.noise import normal
from engines.diffusion.schedule import read_config
from engines.diffusion.session import DiffusionSession
from engines.diffusion.tokens import ClipTokens
from engines.models.diffusion_folder import DiffusionFolder
from engines.models.files import NewFiles
from engines.models.folder_kinds import take_folder
from engines.models.lora_merge import with_loras
from engines.models.store import Found
from engines.part import no_tick
from tests.diffusion_sessions import opened, opened_content, taken
from tests.lora_files import write_safetensors
from tests.stable import stable_folder
from tests.stable_torch import SIDE, exported, modules

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
                limit = 5e-5 if steps == 1 else 1e-5  # a step from pure noise multiplies float32's rounding by 160
                assert found < limit, (name, fields, steps, begin, found)
                counted += 1
    assert counted >= 7


SHAPE = (1, 4, SIDE, SIDE)
PROMPT, NEGATIVE, SEED = "a red cat, and a dog 42", "Dog", 5


class Beside:
    """A folder of ONNX files, and diffusers' own pipeline over the same networks."""

    def __init__(self, folder: Path, kind: str, **schedule: Any) -> None:
        made = modules("XL" in kind, schedule.pop("inside", False))
        self.compare(exported(made, folder, schedule), kind, made)

    def compare(self, folder: Path, kind: str, made: dict[str, Any]) -> None:
        """Open the folder, and a pipeline of diffusers over these networks, with the folder's schedule and tokens."""
        import diffusers
        from transformers import CLIPTokenizer

        self.folder, xl = folder, "XL" in kind
        self.ours: DiffusionSession = opened(self.folder)
        name = json.loads((self.folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
        scheduler = getattr(diffusers, name).from_pretrained(self.folder / "scheduler")
        given = {**made, "scheduler": scheduler}
        for tokens in ("tokenizer", "tokenizer_2") if xl else ("tokenizer",):
            given[tokens] = CLIPTokenizer.from_pretrained(self.folder / tokens, model_max_length=77)
        if not xl:
            given |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        self.theirs = getattr(diffusers, kind)(**given)
        self.theirs.set_progress_bar_config(disable=True)

    def pictures(self, monkeypatch: pytest.MonkeyPatch, wish: Drawing, **given: Any) -> tuple[float, float, float]:
        """How far latents are apart at the worst step, and the pictures in mean and at most, in 255ths."""
        import torch

        noises = iter(range(1, 1000))
        for module in _NOISES:
            path = f"diffusers.schedulers.{module}.randn_tensor"
            monkeypatch.setattr(path, lambda *_, **__: torch.tensor(normal(SEED, next(noises), SHAPE)))
        steps: tuple[list[Any], list[Any]] = ([], [])

        def note(_: Any, __: int, ___: Any, found: dict[str, Any]) -> dict[str, Any]:
            steps[0].append(found["latents"].numpy().copy())
            return found

        def recording(*args: Any) -> Any:
            sampler = sampler_of(*args)
            following = sampler.next

            def record(*given: Any) -> Any:
                steps[1].append(following(*given))
                return steps[1][-1]

            monkeypatch.setattr(sampler, "next", record)
            return sampler

        monkeypatch.setattr("engines.diffusion.session.sampler_of", recording)
        ours, _ = self.ours.draw(wish, no_tick)
        theirs = self.theirs(
            prompt=PROMPT,
            negative_prompt=wish.negative or None,
            num_inference_steps=wish.steps,
            guidance_scale=wish.guidance,
            callback_on_step_end=note,
            output_type="np",
            **given,
        ).images[0]
        assert len(steps[0]) == len(steps[1]) > 0
        worst = max(float(np.abs(a - b).max() / max(1, np.abs(a).max())) for a, b in zip(*steps, strict=True))
        apart = np.abs(ours.astype(float) - theirs * 255)
        return worst, float(apart.mean()), float(apart.max())


@pytest.mark.parametrize(
    ("kind", "schedule", "guidance", "negative"),
    [
        ("StableDiffusionPipeline", {}, 7.5, NEGATIVE),
        ("StableDiffusionPipeline", {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, 4.0, ""),
        ("StableDiffusionPipeline", {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, 3.0, ""),
        ("StableDiffusionPipeline", {"_class_name": "UniPCMultistepScheduler"}, 1.0, ""),
        ("StableDiffusionXLPipeline", {"_class_name": "EulerDiscreteScheduler"}, 5.0, ""),
        ("StableDiffusionXLPipeline", {"_class_name": "EulerDiscreteScheduler"}, 5.0, NEGATIVE),
        (
            "StableDiffusionXLPipeline",
            {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
            0.0,
            "",
        ),
        ("LatentConsistencyModelPipeline", {"_class_name": "LCMScheduler", "inside": True}, 8.5, ""),
    ],
)
def test_pictures_are_diffusers_own_at_each_step(
    kind: str,
    schedule: dict[str, Any],
    guidance: float,
    negative: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    beside = Beside(tmp_path / "m", kind, **schedule)
    wish = Drawing(PROMPT, negative, steps=8, guidance=guidance, seed=SEED)
    given = {"latents": torch.tensor(normal(SEED, 0, SHAPE))}
    if kind == "LatentConsistencyModelPipeline":
        monkeypatch.setattr(type(beside.theirs), "__call__", _without_negative(type(beside.theirs).__call__))
    worst, mean, most = beside.pictures(monkeypatch, wish, **given)
    assert worst < 1e-5, (worst, mean, most)
    assert most < 0.6, "but for rounding to bytes"


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_a_lora_is_merged_as_diffusers_does(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LoRA named as diffusers saves it, fused by peft, and merged into the ONNX files of the unchanged networks."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    torch.set_num_threads(1)
    beside = Beside(tmp_path / "m", kind, _class_name="EulerDiscreteScheduler")
    wish = Drawing(PROMPT, NEGATIVE, steps=4, guidance=4.0, seed=SEED)
    latents = {"latents": torch.tensor(normal(SEED, 0, SHAPE))}
    plain = beside.ours.draw(wish, no_tick)[0]
    names = [each for each in ("unet", "text_encoder", "text_encoder_2") if hasattr(beside.theirs, each)]
    states, alphas = {}, {"unet": 12, "text_encoder": 2, "text_encoder_2": 3}
    for name in names:
        network = getattr(beside.theirs, name)
        linear = ["to_k", "to_q", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1", "time_emb_proj"]
        targets = linear if name == "unet" else ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
        config = peft.LoraConfig(r=4, lora_alpha=alphas[name], target_modules=targets, init_lora_weights=False)
        model = peft.get_peft_model(network, config)
        states[name] = peft.get_peft_model_state_dict(model)
        for layer in model.modules():
            if hasattr(layer, "scale_layer"):
                layer.scale_layer(0.7)
        setattr(beside.theirs, name, model.merge_and_unload())
    arrays, metadata = {}, {}
    for name, state in states.items():
        for key, value in state.items():
            arrays[f"{name}.{key.removeprefix('base_model.model.')}"] = value.detach().numpy()
        metadata |= {f"{name}.lora_alpha": alphas[name], f"{name}.r": 4}
    lora = write_safetensors(tmp_path / "x.safetensors", arrays, {"lora_adapter_metadata": json.dumps(metadata)})
    with NewFiles(tmp_path / "store", lambda: None) as new:
        content = take_folder(beside.folder, DiffusionFolder(), new)
        found, _ = with_loras(Found(beside.folder / "model_index.json", "m", content), [f"{lora}:0.7"], new)
    beside.ours = opened_content(beside.folder, found.content)
    worst, mean, most = beside.pictures(monkeypatch, wish, **latents)
    assert worst < 2e-5, (worst, mean, most)
    assert not np.array_equal(plain, beside.ours.draw(wish, no_tick)[0])


def test_layers_are_left_out_as_diffusers_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    beside = Beside(tmp_path / "m", "StableDiffusionPipeline", _class_name="EulerDiscreteScheduler")
    if not hasattr(text := beside.theirs.text_encoder, "text_model"):  # transformers 5 has its parts in itself
        monkeypatch.setattr(type(text), "text_model", property(lambda self: self), raising=False)
    pictures = []
    for skipped in (1, 2):
        # without guidance, because diffusers leaves out no layer of a negative prompt
        wish = Drawing(PROMPT, steps=4, guidance=1.0, seed=SEED, clip_skip=skipped)
        given = {"latents": torch.tensor(normal(SEED, 0, SHAPE)), "clip_skip": skipped}
        worst, mean, most = beside.pictures(monkeypatch, wish, **given)
        assert worst < 1e-5, (worst, mean, most)
        pictures.append(beside.ours.draw(wish, no_tick)[0].tobytes())
    assert pictures[0] != pictures[1]


def _without_negative(call: Any) -> Any:
    """LCM's own pipeline has no negative prompt."""

    def without(self: Any, **given: Any) -> Any:
        given.pop("negative_prompt")
        return call(self, **given)

    return without


def test_a_picture_that_begins_with_another_is_diffusers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    module = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
    beside = Beside(tmp_path / "m", "StableDiffusionImg2ImgPipeline", _class_name="EulerDiscreteScheduler")
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: torch.tensor(normal(SEED, 0, SHAPE)))
    monkeypatch.setattr(f"{module}.retrieve_latents", lambda found, **_: found.latent_dist.mode())
    picture = np.random.default_rng(3).integers(0, 256, (2 * SIDE, 2 * SIDE, 3), np.uint8)
    given = torch.tensor(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    wish = Drawing(PROMPT, NEGATIVE, steps=10, guidance=4.0, seed=SEED, picture=picture, strength=0.6)
    worst, mean, most = beside.pictures(monkeypatch, wish, image=given, strength=0.6)
    assert worst < 1e-5, (worst, mean, most)
    assert most < 0.6


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = stable_folder(tmp_path / "m", xl=True)
    content = taken(folder)
    texts = [PROMPT, "", "  Ünïcode\u00a0ＡＢＣ 😀 — cats' dog's\tred\n", "cat " * 100, "<|endoftext|> cat", "a" * 3000]
    for name in ("tokenizer", "tokenizer_2"):
        theirs = transformers.CLIPTokenizer.from_pretrained(folder / name)
        ours = ClipTokens(content, name, "m")
        for text in texts:
            expected = theirs(text, padding="max_length", max_length=77, truncation=True)["input_ids"]
            assert ours.ids(text)[0][0].tolist() == expected, text

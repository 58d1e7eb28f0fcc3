"""Writes the networks of a Stable Diffusion of PyTorch as ONNX files, with the names that optimum gives them.

torch, diffusers and transformers come with the extra `convert`, and only this module imports them for these models;
running the model does not need them. Weights in float16 stay in float16, but those of the VAE, which overflow there.
"""

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from engines.diffusion.folder import DECODER, ENCODER, GRAPH, SETTINGS, TEXT, TEXT_2, UNET
from engines.extras import install_extra
from engines.models.graph import OPSET
from engines.models.stable_shapes import CLIP_1, CLIP_XL, OPEN_CLIP_2, OPEN_CLIP_XL, VAE, SingleFile
from schemas.errors import ModelError

_SIDE = 16  # of the traced latents; any is possible afterwards
_TOKENS = 77
_FREE = {0: "batch", 2: "height", 3: "width"}
_EAGER = "eager"  # torch's tracer mixes float16 and float32 in the other kind of attention
_WEIGHTS = "weights.pb"
_AGAIN = "download it again"


def export_folder(folder: Path, networks: Mapping[str, bool], target: Path) -> None:
    """Export the networks of a folder of diffusers, of which `networks` says whether they are in float16.

    Raises ModelError.
    """
    torch, diffusers, transformers = _libraries(str(folder))
    classes = {
        TEXT: transformers.CLIPTextModel,
        TEXT_2: transformers.CLIPTextModelWithProjection,
        UNET: diffusers.UNet2DConditionModel,
        VAE: diffusers.AutoencoderKL,
    }
    made = {}
    for name, half in networks.items():
        variant = None if any(each.name in _PLAIN for each in (folder / name).iterdir()) else "fp16"
        given: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "variant": variant}
        dtype = torch.float16 if half and name != VAE else torch.float32
        given |= {"dtype": dtype, "attn_implementation": _EAGER} if name in (TEXT, TEXT_2) else {"torch_dtype": dtype}
        try:
            made[name] = classes[name].from_pretrained(folder / name, **given)
        except Exception as error:  # the libraries' own classes share no base
            raise ModelError(f"{folder / name} cannot be loaded: {_short(error)}", _AGAIN) from error
    _write(torch, made, target)


_PLAIN = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
)


def export_file(path: Path, single: SingleFile, half: bool, target: Path) -> None:
    """Export the networks of a single file. Raises ModelError."""
    torch, diffusers, transformers = _libraries(str(path))
    from safetensors.torch import load_file

    try:
        state = load_file(path)
        made = _modules(torch, diffusers, transformers, state, single)
        for network in made.values():
            network.to(torch.float16 if half else torch.float32)
        made[VAE].to(torch.float32)
    except Exception as error:  # the libraries' own classes share no base
        raise ModelError(f"{path} has other tensors than its kind: {_short(error)}", _AGAIN) from error
    _write(torch, made, target)


def _libraries(what: str) -> tuple[Any, Any, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"  # of this process alone, which only converts
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            import diffusers
            import torch
            import transformers
    except ImportError as error:
        raise ModelError(
            f"converting {what} needs torch, diffusers and transformers ({error})", install_extra("convert")
        ) from error
    return torch, diffusers, transformers


def _modules(torch: Any, diffusers: Any, transformers: Any, state: Any, single: SingleFile) -> dict[str, Any]:
    """The networks of a single file, with its weights."""
    names: Any = import_module("diffusers.loaders.single_file_utils")

    def text(name: str, kind: Any) -> Any:
        config = transformers.CLIPTextConfig(**single.networks[name])
        config._attn_implementation = _EAGER
        return kind(config)

    settings = single.networks
    unet = diffusers.UNet2DConditionModel(**settings[UNET])
    vae = diffusers.AutoencoderKL(**settings[VAE])
    unet.load_state_dict(names.convert_ldm_unet_checkpoint(state, settings[UNET]))
    vae.load_state_dict(names.convert_ldm_vae_checkpoint(state, settings[VAE]))
    made = {TEXT: text(TEXT, transformers.CLIPTextModel), UNET: unet, VAE: vae}
    if single.version == "2":
        _fill(made[TEXT], names.convert_open_clip_checkpoint(made[TEXT], state, prefix=OPEN_CLIP_2))
    else:
        prefix = CLIP_1 if single.version == "1" else CLIP_XL
        _fill(made[TEXT], {key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)})
    if single.version == "xl":
        made[TEXT_2] = text(TEXT_2, transformers.CLIPTextModelWithProjection)
        _fill(made[TEXT_2], names.convert_open_clip_checkpoint(made[TEXT_2], state, prefix=OPEN_CLIP_XL))
    return made


def _fill(model: Any, state: Mapping[str, Any]) -> None:
    """Load weights whose names may lack the part text_model, as those of the model may."""
    wanted = {key.removeprefix("text_model."): key for key in model.state_dict()}
    found = {key.removeprefix("text_model."): each for key, each in state.items()}
    layers = {key for key in found if key.startswith("encoder.layers.") and key not in wanted}  # left out on purpose
    kept = {key: each for key, each in found.items() if key not in layers and not key.endswith("position_ids")}
    model.load_state_dict({wanted.get(key, key): each for key, each in kept.items()})


def _write(torch: Any, networks: Mapping[str, Any], target: Path) -> None:
    """Trace each network, and write it with its weights in a file beside its graph."""
    unet, xl = networks[UNET], TEXT_2 in networks
    for name in (TEXT, TEXT_2):
        if name in networks:
            _write_text(torch, networks[name], target / name, xl)
    _write_unet(torch, unet, target / UNET, networks.get(TEXT_2))
    vae = networks[VAE]
    latents = torch.randn(1, vae.config.latent_channels, _SIDE, _SIDE)
    smaller = 2 ** (len(vae.config.block_out_channels) - 1)
    picture = torch.randn(1, 3, _SIDE * smaller, _SIDE * smaller)
    free = {"latent_sample": _FREE, "sample": _FREE}
    decoded = _calling(torch, vae, lambda inner, given: inner.decode(given, return_dict=False)[0])
    _export(torch, decoded, (latents,), ["latent_sample"], ["sample"], free, target / DECODER)
    encoded = _calling(torch, vae, lambda inner, given: inner.encode(given).latent_dist.parameters)
    _export(torch, encoded, (picture,), ["sample"], ["latent_parameters"], {"sample": _FREE}, target / ENCODER)
    shown = {
        "block_out_channels": list(vae.config.block_out_channels),
        "scaling_factor": float(vae.config.scaling_factor),
    }
    (target / DECODER / SETTINGS).write_text(json.dumps(shown))
    side = unet.config.sample_size
    (target / UNET / SETTINGS).write_text(json.dumps({"sample_size": side} if isinstance(side, int) else {}))


def _write_text(torch: Any, model: Any, folder: Path, hidden: bool) -> None:
    """A text encoder; of XL with the states of each layer."""
    projected = hasattr(model, "text_projection")

    def answer(inner: Any, ids: Any) -> Any:
        found = inner(input_ids=ids, output_hidden_states=hidden)
        whole = found.text_embeds if projected else found.pooler_output
        return (found.last_hidden_state, whole, *(found.hidden_states or ()))

    layers = range(model.config.num_hidden_layers + 1) if hidden else ()
    outputs = ["last_hidden_state", "text_embeds" if projected else "pooler_output"]
    outputs += [f"hidden_states.{number}" for number in layers]
    ids = torch.ones(1, _TOKENS, dtype=torch.int64)
    _export(torch, _calling(torch, model, answer), (ids,), ["input_ids"], outputs, {"input_ids": {0: "batch"}}, folder)


def _write_unet(torch: Any, unet: Any, folder: Path, second: Any) -> None:
    config = unet.config
    dtype, width = unet.dtype, config.cross_attention_dim
    channels = config.in_channels
    given = {
        "sample": torch.randn(2, channels, _SIDE, _SIDE, dtype=dtype),
        "timestep": torch.tensor([1]),
        "encoder_hidden_states": torch.randn(2, _TOKENS, width, dtype=dtype),
    }
    if second is not None:
        given["text_embeds"] = torch.randn(2, second.config.projection_dim, dtype=dtype)
        given["time_ids"] = torch.randn(2, 6, dtype=dtype)
    if config.time_cond_proj_dim:
        given["timestep_cond"] = torch.randn(2, config.time_cond_proj_dim, dtype=dtype)
    free: dict[str, dict[int, str]] = {name: {0: "batch"} for name in given}
    free |= {"sample": _FREE, "timestep": {0: "steps"}}

    def answer(inner: Any, sample: Any, timestep: Any, states: Any, *more: Any) -> Any:
        added = {"text_embeds": more[0], "time_ids": more[1]} if second is not None else None
        condition = more[-1] if config.time_cond_proj_dim else None
        return inner(sample, timestep, states, timestep_cond=condition, added_cond_kwargs=added, return_dict=False)[0]

    _export(torch, _calling(torch, unet, answer), tuple(given.values()), list(given), ["out_sample"], free, folder)


def _calling(torch: Any, inner: Any, answer: Any) -> Any:
    """A module that answers by a function of a network."""

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *given: Any) -> Any:
            return answer(self.inner, *given)

    return Network().eval()


def _export(
    torch: Any, network: Any, given: Any, names: Sequence[str], outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]], folder: Path,
) -> None:  # fmt: skip
    import onnx

    traced = folder / "traced"
    traced.mkdir(parents=True)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, given, str(traced / GRAPH), input_names=list(names), output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in free.items()}, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    onnx.save(onnx.load(traced / GRAPH), folder / GRAPH, save_as_external_data=True, location=_WEIGHTS)
    for file in traced.iterdir():
        file.unlink()
    traced.rmdir()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""Reads off the names and shapes of tensors which Stable Diffusion a single file is: settings of diffusers' networks.

Such files have the names of Stability's own code (CompVis/latent-diffusion, Stability-AI/generative-models). Shapes do
not say the number of heads, the groups of norms, activations and the scale of latents: they are those of versions 1, 2
and XL.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from engines.diffusion.folder import TEXT, TEXT_2, UNET
from schemas.errors import ModelError

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Settings: TypeAlias = dict[str, Any]

VAE = "vae"
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
CLIP_1, OPEN_CLIP_2 = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
_HEADS_1, _HEAD_WIDTH, _GROUPS = 8, 64, 32
_SIDES = {"1": 64, "2": 96, "xl": 128}  # of latents
_CLIP_START, _CLIP_END = 49406, 49407
_OTHERS = {
    "double_blocks.": "a Flux",
    "joint_blocks.": "a Stable Diffusion 3",
    "conditioner.embedders.0.model.": "a refiner of XL",
    "control_model.": "a ControlNet",
}
_RUNS = "rigflow runs Stable Diffusion 1, 2 and XL of words"


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A whole Stable Diffusion in one file: `version` 1, 2 or "xl", and the settings of its networks by name."""

    version: str
    networks: Mapping[str, Settings]
    v_prediction: bool
    zero_snr: bool


def is_whole(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a whole Stable Diffusion, or one of its kin."""
    return any(name.startswith((_UNET, "model.diffusion_model")) for name in names)


def single_file(shapes: Shapes, path: str) -> SingleFile:
    """Return what a file is by its shapes. Raises ModelError for another network than those that rigflow runs."""
    for part, kind in _OTHERS.items():
        if any(part in name for name in shapes):
            raise ModelError(f"{path} is {kind}", _RUNS)
    try:
        return _single_file(shapes, path)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        what = f"{path} lacks {str(error.args[0])[:120]}" if isinstance(error, KeyError) else f"{path} lacks networks"
        raise ModelError(what, f"take a file with text encoder, UNet and VAE; {_RUNS}") from error


def _single_file(shapes: Shapes, path: str) -> SingleFile:
    version = next(
        (
            version
            for version, prefix in {"xl": OPEN_CLIP_XL, "2": OPEN_CLIP_2, "1": CLIP_1}.items()
            if any(name.startswith(prefix) for name in shapes)
        ),
        "",
    )
    if not version:
        raise ModelError(f"{path} has no text encoder that rigflow knows", f"take a file with one; {_RUNS}")
    networks = {UNET: _unet(shapes), VAE: _vae(shapes, version)}
    networks[UNET]["sample_size"] = _SIDES[version]
    if version == "xl":
        networks[TEXT] = _clip(shapes, CLIP_XL)
        networks[TEXT_2] = _open_clip(shapes, OPEN_CLIP_XL, 0)
        given = networks[UNET]["projection_class_embeddings_input_dim"] - networks[TEXT_2]["projection_dim"]
        networks[UNET]["addition_time_embed_dim"] = given // 6
    else:
        networks[TEXT] = _clip(shapes, CLIP_1) if version == "1" else _open_clip(shapes, OPEN_CLIP_2, 1)
    if (channels := networks[UNET]["in_channels"]) != networks[VAE]["latent_channels"]:
        what = f"the UNet of {path} takes {channels} channels: it inpaints, or begins with another picture"
        raise ModelError(what, _RUNS)
    return SingleFile(version, networks, version == "2" or "v_pred" in shapes, "ztsnr" in shapes)


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers there are in the place of the pattern's group."""
    found = (re.match(pattern, name) for name in shapes)
    return max((int(each.group(1)) + 1 for each in found if each), default=0)


def _unet(shapes: Shapes) -> Settings:
    inputs = f"{_UNET}input_blocks."
    channels: list[int] = []
    depths: list[int] = []
    layers, layer, heads_of = 0, 0, None
    for number in range(1, _count(shapes, re.escape(inputs) + r"(\d+)\.")):
        if f"{inputs}{number}.0.op.weight" in shapes:
            layer = 0
            continue
        width = shapes[f"{inputs}{number}.0.out_layers.3.weight"][0]
        depth = _count(shapes, re.escape(f"{inputs}{number}.1.transformer_blocks.") + r"(\d+)\.")
        if layer == 0:
            channels.append(width)
            depths.append(depth)
        layer += 1
        layers = max(layers, layer)
        heads_of = f"{inputs}{number}.1" if depth else heads_of
    if heads_of is None:
        raise KeyError("a UNet that reads text")
    linear = len(shapes[f"{heads_of}.proj_in.weight"]) == 2
    cross = [bool(depth) for depth in depths]
    made: Settings = {
        "in_channels": shapes[f"{inputs}0.0.weight"][1],
        "out_channels": shapes[f"{_UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in cross],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in cross[::-1]],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "cross_attention_dim": shapes[f"{heads_of}.transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": [max(1, each // _HEAD_WIDTH) for each in channels] if linear else _HEADS_1,
        "use_linear_projection": linear,
        "norm_num_groups": _GROUPS,
    }
    if f"{_UNET}label_emb.0.0.weight" in shapes:
        width = shapes[f"{_UNET}label_emb.0.0.weight"][1]
        made |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": width}
    return made


def _vae(shapes: Shapes, version: str) -> Settings:
    downs = f"{_VAE}encoder.down."
    levels = _count(shapes, re.escape(downs) + r"(\d+)\.")
    return {
        "block_out_channels": [shapes[f"{downs}{level}.block.0.conv2.weight"][0] for level in range(levels)],
        "layers_per_block": _count(shapes, re.escape(downs) + r"0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shapes[f"{_VAE}post_quant_conv.weight"][0],
        "norm_num_groups": _GROUPS,
        "scaling_factor": 0.13025 if version == "xl" else 0.18215,
    }


def _clip(shapes: Shapes, prefix: str) -> Settings:
    vocabulary, width = shapes[f"{prefix}embeddings.token_embedding.weight"]
    layers = _count(shapes, re.escape(f"{prefix}encoder.layers.") + r"(\d+)\.")
    inner = shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0]
    return _text(vocabulary, width, layers, inner, "quick_gelu")


def _open_clip(shapes: Shapes, prefix: str, unread: int) -> Settings:
    """Settings of a text encoder in OpenCLIP's names; `unread`: so many of its last layers are left out."""
    vocabulary, width = shapes[f"{prefix}token_embedding.weight"]
    layers = _count(shapes, re.escape(f"{prefix}transformer.resblocks.") + r"(\d+)\.") - unread
    inner = shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]
    made = _text(vocabulary, width, layers, inner, "gelu")
    if f"{prefix}text_projection" in shapes:
        made["projection_dim"] = shapes[f"{prefix}text_projection"][1]
    return made


def _text(vocabulary: int, width: int, layers: int, inner: int, activation: str) -> Settings:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "hidden_act": activation,
        "projection_dim": width,
        "bos_token_id": min(_CLIP_START, vocabulary - 2),
        "eos_token_id": min(_CLIP_END, vocabulary - 1),
        "pad_token_id": None,
    }

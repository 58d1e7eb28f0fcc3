"""Tiny random Stable Diffusions of PyTorch as people download them: a folder of diffusers, and a single file."""

import json
import re
from pathlib import Path
from typing import Any

from tests.clip_tokens import END, START, vocabulary
from tests.stable import MERGES, SCHEDULE, tokenizer

WORDS = vocabulary(MERGES)
SIDE, WIDTH = 8, 64
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ALONE = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2",
}  # fmt: skip
_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def networks(version: str, channels: int = 4) -> dict[str, Any]:
    """The networks of version 1, 2 or "xl" by the names of their folders; sizes suit what single files do not say."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(3)
    text = {
        "vocab_size": len(WORDS), "intermediate_size": 96, "num_hidden_layers": 3, "projection_dim": WIDTH,
        "bos_token_id": WORDS[START], "eos_token_id": WORDS[END], "pad_token_id": WORDS[END],
    }  # fmt: skip
    act = "gelu" if version == "2" else "quick_gelu"
    first = CLIPTextConfig(hidden_size=WIDTH, num_attention_heads=1, hidden_act=act, **text)
    made: dict[str, Any] = {"text_encoder": CLIPTextModel(first)}
    linear, cross, added = version != "1", WIDTH, {}
    if version == "xl":
        second = CLIPTextConfig(hidden_size=WIDTH, num_attention_heads=1, hidden_act="gelu", **text)
        made["text_encoder_2"] = CLIPTextModelWithProjection(second)
        cross = 2 * WIDTH
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        added |= {"projection_class_embeddings_input_dim": WIDTH + 6 * 8, "transformer_layers_per_block": [1, 2]}
    made["unet"] = UNet2DConditionModel(
        sample_size=SIDE, in_channels=channels, block_out_channels=(32, 64), layers_per_block=2,
        cross_attention_dim=cross,        attention_head_dim=(1, 1) if linear else 8, use_linear_projection=linear,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **added,
    )  # fmt: skip
    made["vae"] = AutoencoderKL(
        block_out_channels=(32, 64), layers_per_block=2, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13025 if version == "xl" else 0.18215,
    )  # fmt: skip
    return {name: each.eval() for name, each in made.items()}


def folder_of(made: dict[str, Any], folder: Path, kind: str, variant: str | None = None, **schedule: Any) -> Path:
    """A folder as diffusers' `save_pretrained` writes it."""
    for name, each in made.items():
        each.save_pretrained(folder / name, **({"variant": variant} if variant else {}))
    for name in ("tokenizer", "tokenizer_2") if "text_encoder_2" in made else ("tokenizer",):
        tokenizer(folder / name, pad="!" if name == "tokenizer_2" else END)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**SCHEDULE, **schedule}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder


def single_of(made: dict[str, Any], path: Path, version: str, half: bool = False) -> Path:
    """A file with the names of Stability's own code, with its tokenizer beside it."""
    from safetensors.torch import save_file

    state = {f"model.diffusion_model.{_of_unet(key)}": each for key, each in made["unet"].state_dict().items()}
    levels = len(made["vae"].config.block_out_channels)
    state |= {f"first_stage_model.{_of_vae(key, levels)}": each for key, each in made["vae"].state_dict().items()}
    for key in [each for each in state if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", each)]:
        state[key] = state[key][:, :, None, None]  # there they are convolutions
    first = {key.removeprefix("text_model."): each for key, each in made["text_encoder"].state_dict().items()}
    if version == "2":
        state |= _open_clip(first, "cond_stage_model.model.", unread=2)
    else:
        place = "cond_stage_model." if version == "1" else "conditioner.embedders.0."
        state |= {f"{place}transformer.text_model.{key}": each for key, each in first.items()}
    if version == "xl":
        second = {key.removeprefix("text_model."): each for key, each in made["text_encoder_2"].state_dict().items()}
        state |= _open_clip(second, "conditioner.embedders.1.model.")
    save_file({key: (each.half() if half else each).contiguous().clone() for key, each in state.items()}, path)
    tokenizer(path.parent / "tokenizer")
    return path


def _of_unet(key: str) -> str:
    module, _, last = key.rpartition(".")
    if module in _ALONE:
        return f"{_ALONE[module]}.{last}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", module):
        kind, number, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inner(kind, rest)}.{last}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", module)
    assert found is not None, key
    side, block, kind, layer, rest = found.groups()
    each = 3  # two layers and what changes the size; on the way up three layers
    if side == "down":
        number = 1 + each * int(block) + (2 if kind == "downsamplers" else int(layer))
        return f"input_blocks.{number}.{'0.op' if kind == 'downsamplers' else _placed(kind, rest)}.{last}"
    number = each * int(block) + (2 if kind == "upsamplers" else int(layer))
    return f"output_blocks.{number}.{'2.conv' if kind == 'upsamplers' else _placed(kind, rest)}.{last}"


def _placed(kind: str, rest: str) -> str:
    return f"{'1' if kind == 'attentions' else '0'}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    return _RESNET[rest] if kind == "resnets" else rest


def _of_vae(key: str, levels: int) -> str:
    key = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{levels - 1 - int(found.group(1))}", key)
    key = re.sub(r"down_blocks\.(\d)", r"down.\1", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found.group(1)) + 1}", key)
    key = re.sub(r"\.resnets\.(\d)", r".block.\1", key)
    key = re.sub(r"\.(down|up)samplers\.0\.conv", r".\1sample.conv", key)
    if found := re.search(r"mid_block\.attentions\.0\.(.+)\.(weight|bias)$", key):
        return key[: found.start()] + f"mid.attn_1.{_VAE_ATTENTION[found.group(1)]}.{found.group(2)}"
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _open_clip(state: dict[str, Any], prefix: str, unread: int = 0) -> dict[str, Any]:
    """A text encoder in OpenCLIP's names; `unread`: a last layer with this number is there that nobody reads."""
    import torch

    made = {
        f"{prefix}positional_embedding": state["embeddings.position_embedding.weight"],
        f"{prefix}token_embedding.weight": state["embeddings.token_embedding.weight"],
        f"{prefix}ln_final.weight": state["final_layer_norm.weight"],
        f"{prefix}ln_final.bias": state["final_layer_norm.bias"],
    }
    if "text_projection.weight" in state:
        made[f"{prefix}text_projection"] = state["text_projection.weight"].T
    numbers = sorted({int(key.split(".")[2]) for key in state if key.startswith("encoder.layers.")})
    for number in [*numbers, *([numbers[-1]] if unread else [])]:
        block = f"{prefix}transformer.resblocks.{number}."
        if block + "ln_1.weight" in made:
            block = f"{prefix}transformer.resblocks.{number + 1}."
        for kind in ("weight", "bias"):
            of = f"encoder.layers.{number}."
            parts = [state[f"{of}self_attn.{each}_proj.{kind}"] for each in "qkv"]
            made[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
            made[f"{block}attn.out_proj.{kind}"] = state[f"{of}self_attn.out_proj.{kind}"]
            made |= {f"{block}{new}.{kind}": state[f"{of}{old}.{kind}"] for old, new in _OPEN_CLIP.items()}
    return made

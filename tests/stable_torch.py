"""Tiny random Stable Diffusions as diffusers' own classes, and the folders of ONNX files that are exported of them."""

import json
from pathlib import Path
from typing import Any

from tests.clip_tokens import END, START, vocabulary
from tests.stable import MERGES, SCHEDULE, tokenizer

WORDS = len(vocabulary(MERGES))
SIDE, WIDTH, XL_WIDTH = 8, 16, 48  # of latents; of the first encoder's states, and of both side by side


def modules(xl: bool, inside: bool = False) -> dict[str, Any]:
    """The networks by the names of their folders, with random weights of a seed."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    text: dict[str, Any] = {
        "vocab_size": WORDS,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "bos_token_id": vocabulary(MERGES)[START],
        "eos_token_id": vocabulary(MERGES)[END],
        "pad_token_id": vocabulary(MERGES)[END],
    }
    made = {"text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=WIDTH, projection_dim=WIDTH, **text))}
    added: dict[str, Any] = {}
    if xl:
        second = CLIPTextConfig(hidden_size=32, projection_dim=32, hidden_act="gelu", **text)
        made["text_encoder_2"] = CLIPTextModelWithProjection(second)
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 8 * 6 + 32,
        }
    made["unet"] = UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=XL_WIDTH if xl else WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        time_cond_proj_dim=8 if inside else None,
        **added,
    )
    made["vae"] = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return {name: each.eval() for name, each in made.items()}


def exported(made: dict[str, Any], folder: Path, schedule: dict[str, Any] | None = None) -> Path:
    """Write the folder of ONNX files as optimum names them."""
    xl, inside = "text_encoder_2" in made, bool(made["unet"].config.time_cond_proj_dim)
    folder.mkdir(parents=True)
    for name in ("text_encoder", "text_encoder_2"):
        if name in made:
            _export_text(made[name], folder / name, xl)
    _export_unet(made["unet"], folder / "unet", xl, inside)
    _export_vae(made["vae"], folder)
    for name in ("tokenizer", "tokenizer_2") if xl else ("tokenizer",):
        tokenizer(folder / name, pad="!" if name == "tokenizer_2" else END)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**SCHEDULE, **(schedule or {})}))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def _export_text(model: Any, folder: Path, hidden: bool) -> None:
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: Any) -> Any:
            found = self.inner(input_ids=input_ids, output_hidden_states=hidden)
            whole = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
            return (found.last_hidden_state, whole, *(found.hidden_states or ()))

    folder.mkdir()
    whole = "text_embeds" if hasattr(model, "text_projection") else "pooler_output"
    states = [f"hidden_states.{number}" for number in range(model.config.num_hidden_layers + 1)] if hidden else []
    ids = torch.ones(1, 77, dtype=torch.int64)
    _save(Text(), (ids,), folder, ["input_ids"], ["last_hidden_state", whole, *states], {})


def _export_unet(model: Any, folder: Path, xl: bool, inside: bool) -> None:
    import torch

    class Unet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, sample: Any, timestep: Any, states: Any, *more: Any) -> Any:
            added = {"text_embeds": more[0], "time_ids": more[1]} if xl else None
            condition = more[-1] if inside else None
            return self.inner(
                sample, timestep, states, timestep_cond=condition, added_cond_kwargs=added, return_dict=False
            )[0]

    folder.mkdir()
    given = [torch.randn(2, 4, SIDE, SIDE), torch.tensor([1.0]), torch.randn(2, 77, XL_WIDTH if xl else WIDTH)]
    names = ["sample", "timestep", "encoder_hidden_states"]
    if xl:
        given += [torch.randn(2, 32), torch.randn(2, 6)]
        names += ["text_embeds", "time_ids"]
    if inside:
        given.append(torch.randn(2, 8))
        names.append("timestep_cond")
    free = {name: {0: "batch"} for name in names if name != "timestep"}
    _save(Unet(), tuple(given), folder, names, ["out_sample"], free)
    (folder / "config.json").write_text(json.dumps({"sample_size": SIDE}))


def _export_vae(model: Any, folder: Path) -> None:
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, latents: Any) -> Any:
            return self.inner.decode(latents, return_dict=False)[0]

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, sample: Any) -> Any:
            return self.inner.encode(sample).latent_dist.parameters

    for name in ("vae_decoder", "vae_encoder"):
        (folder / name).mkdir()
    _save(Decoder(), (torch.randn(1, 4, SIDE, SIDE),), folder / "vae_decoder", ["latent_sample"], ["sample"], {})
    given = (torch.randn(1, 3, 2 * SIDE, 2 * SIDE),)
    _save(Encoder(), given, folder / "vae_encoder", ["sample"], ["latent_parameters"], {})
    settings = {"block_out_channels": [8, 16], "scaling_factor": model.config.scaling_factor}
    (folder / "vae_decoder" / "config.json").write_text(json.dumps(settings))


def _save(model: Any, given: Any, folder: Path, names: list[str], outputs: list[str], free: Any) -> None:
    import torch

    torch.onnx.export(
        model.eval(),
        given,
        str(folder / "model.onnx"),
        input_names=names,
        output_names=outputs,
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )

"""A Stable Diffusion 1.5 of random weights: `python -m benchmarks.random_stable FOLDER [--channels 320] [--half]`.

The UNet has the form of version 1.5, with 320 channels also its size, and with fewer it is smaller by the square of
that. So does the decoder, of which 128 are that of version 1.5. It needs the packages of `make test-models`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clip_tokens import END, START, vocabulary
from tests.stable import MERGES, SCHEDULE, tokenizer

_TRACED = 16  # side of the latents; any is possible afterwards
_WIDTH, _LAYERS = 768, 2  # of the text encoder; it has twelve, and is run once a picture
_FREE = {0: "batch", 2: "height", 3: "width"}


def networks(channels: int) -> dict[str, Any]:
    """The networks by name."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    words = vocabulary(MERGES)
    text = CLIPTextConfig(
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_attention_heads=12,
        num_hidden_layers=_LAYERS,
        vocab_size=len(words),
        bos_token_id=words[START],
        eos_token_id=words[END],
        pad_token_id=words[END],
        attn_implementation="eager",  # the tracer mixes float16 and float32 in the other, which CUDA refuses
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=[channels, 2 * channels, 4 * channels, 4 * channels],
        cross_attention_dim=_WIDTH,
        attention_head_dim=8,
    )
    side = max(32, 32 * round(channels * 128 / 320 / 32))
    vae = AutoencoderKL(
        block_out_channels=[side, 2 * side, 4 * side, 4 * side],
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return {"text_encoder": CLIPTextModel(text), "unet": unet, "vae_decoder": vae}


def write(folder: Path, channels: int, half: bool) -> None:
    """Write the folder, with the weights of each network in a file beside its graph."""
    import torch

    class Network(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, name: str, inner: Any) -> None:
            super().__init__()
            self.name, self.inner = name, inner

        def forward(self, *given: Any) -> Any:
            if self.name == "text_encoder":
                return self.inner(input_ids=given[0]).last_hidden_state
            if self.name == "unet":
                return self.inner(*given, return_dict=False)[0]
            return self.inner.decode(*given, return_dict=False)[0]

    dtype = torch.float16 if half else torch.float32
    latents = torch.randn(2, 4, _TRACED, _TRACED, dtype=dtype)
    inputs: dict[str, dict[str, tuple[Any, dict[int, str]]]] = {
        "text_encoder": {"input_ids": (torch.ones(1, 77, dtype=torch.int64), {0: "batch"})},
        "unet": {
            "sample": (latents, _FREE),
            "timestep": (torch.tensor([1]), {0: "steps"}),
            "encoder_hidden_states": (torch.randn(2, 77, _WIDTH, dtype=dtype), {0: "batch"}),
        },
        "vae_decoder": {"latent_sample": (latents[:1], _FREE)},
    }
    for name, network in networks(channels).items():
        (folder / name).mkdir(parents=True)
        output = {"text_encoder": "last_hidden_state", "unet": "out_sample", "vae_decoder": "sample"}[name]
        _export(Network(name, network.to(dtype)).eval(), inputs[name], output, folder / name)
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 64}))
    (folder / "vae_decoder" / "config.json").write_text(json.dumps({"block_out_channels": [1] * 4}))
    tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')


def _export(network: Any, inputs: dict[str, tuple[Any, dict[int, str]]], output: str, folder: Path) -> None:
    import onnx
    import torch

    traced = folder / "traced"
    traced.mkdir()
    torch.onnx.export(
        network,
        tuple(given for given, _ in inputs.values()),
        str(traced / "model.onnx"),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes={name: axes for name, (_, axes) in inputs.items()},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(traced / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.pb")
    for file in traced.iterdir():
        file.unlink()
    traced.rmdir()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--channels", type=int, default=320)
    parser.add_argument("--half", action="store_true", help="float16")
    given = parser.parse_args(arguments)
    write(given.folder, given.channels, given.half)
    return 0


if __name__ == "__main__":
    sys.exit(main())

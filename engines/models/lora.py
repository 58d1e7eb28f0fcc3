"""Reads LoRAs of Stable Diffusion: small changes of weights, as kohya's sd-scripts and diffusers write them.

Of a weight `[out, in]` a LoRA has `up [out, r]` and `down [r, in]`, and the weight becomes
`W + strength * alpha / r * up @ down` (Hu and others, 2106.09685); of a convolution `down` has the kernel. Weights are
named by modules of diffusers, by kohya with `_` for each dot, and of XL also by those of Stability's own code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.diffusion.folder import TEXT, TEXT_2, UNET
from engines.models.safetensors import Safetensors
from engines.part import Array
from schemas.errors import ModelError
from schemas.text import shell_word

_PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
_PLACES = {
    "lora_unet_": UNET,
    "lora_te_": TEXT,
    "lora_te1_": TEXT,
    "lora_te2_": TEXT_2,
    "unet.": UNET,
    "text_encoder.": TEXT,
    "text_encoder_2.": TEXT_2,
    "down_blocks.": UNET,
    "mid_block.": UNET,
    "up_blocks.": UNET,
}
_OTHERS = re.compile(r"hada_|lokr_|dora_scale|lora_mid|lora_magnitude|\.diff(_b)?$|oft_|\.on_input$")
_STABILITY = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(.+)|middle_block_([012])_(.+)")
_IN_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_ALONE = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_2": "conv_out",
}
_METADATA = "lora_adapter_metadata"  # of diffusers
_WANTED = "take a LoRA of kohya's sd-scripts or diffusers"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one weight: `factor * up @ down`. `module`: its name, with `_` for each dot."""

    network: str
    module: str
    up: Array
    down: Array
    factor: float


def read_lora(path: Path, strength: float) -> list[Change]:
    """Return the changes of a file. Raises ModelError: it is none, is damaged, or of a kind that is not here."""
    file = Safetensors(path)
    found: dict[tuple[str, str], dict[str, Array]] = {}
    for name in file.names:
        if _OTHERS.search(name):
            what = f"{path}: {name[:120]} is of another kind of LoRA (LoHa, LoKr, DoRA, or a full weight)"
            raise ModelError(what, _WANTED)
        network, module, part = _parsed(name, path)
        found.setdefault((network, module), {})[part] = file.array(name)
    if not found:
        raise ModelError(f"{path} has no weights of a LoRA", _WANTED)
    return [
        _change(network, module, parts, strength, _stated(file.metadata, network, path), path)
        for (network, module), parts in found.items()
    ]


def _parsed(name: str, path: Path) -> tuple[str, str, str]:
    """Network, module with its dots, and part of a tensor."""
    place = next((each for each in _PLACES if name.startswith(each)), "")
    suffix = next((each for each in _PARTS if name.endswith(each)), "")
    if not place or not suffix:
        raise ModelError(f"{path}: {name[:120]} is no weight of a LoRA of Stable Diffusion", _WANTED)
    begin = 0 if place.endswith(("blocks.", "block.")) else len(place)
    module = name[begin : -len(suffix)]
    if suffix.startswith("_lora"):  # of old diffusers: attn1.processor.to_out_lora is attn1.to_out.0
        module = module.replace(".processor.", ".")
        module += ".0" if module.endswith(".to_out") else ""
    return _PLACES[place], module, _PARTS[suffix]


def _change(
    network: str, module: str, parts: Mapping[str, Array], strength: float, stated: "_Stated", path: Path
) -> Change:
    up, down = parts.get("up"), parts.get("down")
    if up is None or down is None:
        raise ModelError(f"{path}: of {module[:120]} a half is missing", "download it again")
    rank = down.shape[0] if down.ndim else 0
    if up.ndim < 2 or down.ndim < 2 or not rank or up.size != up.shape[0] * rank:
        raise ModelError(f"{path}: of {module[:120]} the halves {up.shape} and {down.shape} do not fit", _WANTED)
    if "alpha" in parts and parts["alpha"].size != 1:
        raise ModelError(f"{path}: of {module[:120]} alpha is no number", _WANTED)
    alpha = float(parts["alpha"].reshape(())) if "alpha" in parts else stated.alpha(module, rank)
    factor = strength * alpha / (rank**0.5 if stated.by_root else rank)
    name = re.sub(r"[^A-Za-z0-9]", "_", module)
    name = _of_stability(name) if network == UNET else name.removeprefix("text_model_")
    return Change(network, name, up.reshape(up.shape[0], rank), down.reshape(rank, -1), factor)


@dataclass(frozen=True, slots=True)
class _Stated:
    """What diffusers writes beside the weights of a network."""

    fields: Mapping[str, Any]

    @property
    def by_root(self) -> bool:
        """Whether alpha is divided by the rank's root."""
        return bool(self.fields.get("use_rslora"))

    def alpha(self, module: str, rank: int) -> float:
        """Of a module; without one the rank."""
        pattern = self.fields.get("alpha_pattern")
        for key, value in pattern.items() if isinstance(pattern, dict) else ():
            if (module == key or module.endswith(f".{key}")) and isinstance(value, int | float):
                return float(value)
        alpha = self.fields.get("lora_alpha")
        return float(alpha) if isinstance(alpha, int | float) else float(rank)


def _stated(metadata: Mapping[str, Any], network: str, path: Path) -> _Stated:
    if _METADATA not in metadata:
        return _Stated({})
    try:
        fields = json.loads(metadata[_METADATA])
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its metadata are no JSON", "download it again") from error
    if not isinstance(fields, dict):
        return _Stated({})
    return _Stated({key.removeprefix(f"{network}."): value for key, value in fields.items() if key.startswith(network)})


def _of_stability(module: str) -> str:
    """A module by diffusers' name: `input_blocks_4_1_proj_in` is `down_blocks_1_attentions_0_proj_in`.

    Three modules stand for a block of two layers and what makes it smaller or larger.
    """
    found = _STABILITY.fullmatch(module)
    if found is None:
        return _ALONE.get(module, module)
    side, number, place, rest, middle, inner = found.groups()
    if side is None:
        return f"mid_block_{('resnets_0', 'attentions_0', 'resnets_1')[int(middle)]}_{_inner(inner)}"
    down, at = side == "input", int(number)
    block, layer = divmod(at - 1 if down else at, 3)
    if down and layer == 2:
        return f"down_blocks_{block}_downsamplers_0_conv"
    if rest == "conv":
        return f"up_blocks_{block}_upsamplers_0_conv"
    return f"{'down' if down else 'up'}_blocks_{block}_{('resnets', 'attentions')[place == '1']}_{layer}_{_inner(rest)}"


def _inner(name: str) -> str:
    return _IN_RESNET.get(name, name)


def file_and_strength(given: str) -> tuple[Path, float]:
    """Return file and strength of `FILE` or `FILE:STRENGTH`. Raises ModelError."""
    path, colon, text = given.rpartition(":")
    try:
        strength = float(text) if colon else 1.0
    except ValueError:
        path, strength = "", 1.0
    if not abs(strength) <= 100:
        raise ModelError(f"--lora {given}: the strength is no number up to 100", "0.5 to 1 is usual")
    return Path(path or given), strength


def check_alone(path: Path) -> None:
    """Raise ModelError for a .safetensors file that is a LoRA."""
    names = Safetensors(path).names if path.suffix.lower() == ".safetensors" else []
    if any(name.startswith(tuple(_PLACES)) and name.endswith(tuple(_PARTS)) for name in names):
        hint = f"give it with its model: `rigflow model add FOLDER --lora {shell_word(path)}`"
        raise ModelError(f"{path} is a LoRA", hint)

"""The files of a Stable Diffusion that is a folder, as optimum and Olive write it, and what they say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.content import ModelFiles
from engines.diffusion.schedule import CONFIG, ScheduleConfig, read_config
from schemas.errors import ModelError

MAIN = "model_index.json"
GRAPH = "model.onnx"
TEXT, TEXT_2, UNET, DECODER, ENCODER = "text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder"
NETWORKS = (TEXT, TEXT_2, UNET, DECODER, ENCODER)
NEEDED = (TEXT, UNET, DECODER)
TOKENIZERS = ("tokenizer", "tokenizer_2")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SCHEDULE = f"scheduler.{CONFIG}"
SETTINGS = "config.json"
_AGAIN = "download the whole folder again"
_SCALE, _SCALE_XL = 0.18215, 0.13025  # of latents; diffusers' AutoencoderKL and SDXL's own config
_TIMES_SMALLER = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """What a folder says: `xl`, the factor of its latents, how many times smaller they are, and a picture's usual side.

    `empty_is_zeros`: an empty negative prompt is zeros instead of the text encoder's answer.
    """

    xl: bool
    scale: float
    smaller: int
    side: int
    empty_is_zeros: bool
    schedule: ScheduleConfig


def stored_name(path: str) -> str:
    """Return the name of a file of the folder among the files of a model: `unet/model.onnx` is `unet.model.onnx`."""
    return path.replace("/", ".")


def file_of(model: ModelFiles, name: str) -> bytes | None:
    """Return a file of a model by its stored name; None if it has none. Raises ModelError."""
    for file in model.files:
        if file.name == name:
            try:
                return (model.folder / file.sha256).read_bytes()
            except OSError as error:
                raise ModelError(f"its file {name} cannot be read: {error.strerror}", "add the model again") from error
    return None


def parsed(data: bytes | None, where: str) -> Mapping[str, Any]:
    """Return a file of settings, {} of one that is not there. Raises ModelError."""
    if data is None:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is no JSON", _AGAIN) from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} is no JSON object", _AGAIN)
    return found


def facts_of(model: ModelFiles, name: str) -> Facts:
    """Return what the files of a model say. Raises ModelError."""
    names = {file.name for file in model.files}
    check_names(names, name)
    index = parsed(model.graph, f"model {name}: {MAIN}")
    vae, unet = (
        parsed(file_of(model, f"{each}.{SETTINGS}"), f"model {name}: {each}/{SETTINGS}") for each in (DECODER, UNET)
    )
    xl = stored_name(f"{TEXT_2}/{GRAPH}") in names
    blocks = vae.get("block_out_channels")
    smaller = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 1 <= len(blocks) <= 8 else _TIMES_SMALLER
    side = _number(unet, "sample_size", (1024 if xl else 512) // smaller, name) * smaller
    schedule = file_of(model, SCHEDULE)
    assert schedule is not None, "the names are checked"
    return Facts(
        xl=xl,
        scale=float(_number(vae, "scaling_factor", _SCALE_XL if xl else _SCALE, name)),
        smaller=smaller,
        side=int(side),
        empty_is_zeros=xl and index.get("force_zeros_for_empty_prompt", True) is not False,
        schedule=read_config(schedule, name),
    )


def check_names(names: set[str], model: str) -> None:
    """Raise ModelError unless the files that every Stable Diffusion has are there, by their stored names."""
    for network in NEEDED:
        if stored_name(f"{network}/{GRAPH}") not in names:
            raise ModelError(f"model {model} has no {network}/{GRAPH}", _AGAIN)
    if SCHEDULE not in names:
        raise ModelError(f"model {model} has no scheduler/{CONFIG}", _AGAIN)
    for folder, network in zip(TOKENIZERS, (TEXT, TEXT_2), strict=True):
        parts = {f"{folder}.vocab.json", f"{folder}.merges.txt"}
        there = f"{folder}.tokenizer.json" in names or parts <= names
        if stored_name(f"{network}/{GRAPH}") in names and not there:
            raise ModelError(f"model {model} has no {folder}/tokenizer.json, nor vocab.json with merges.txt", _AGAIN)


def _number(settings: Mapping[str, Any], key: str, default: float, model: str) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ModelError(f"model {model}: {SETTINGS} has no number {key}", _AGAIN)
    return value

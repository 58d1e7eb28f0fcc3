"""The folder of a model of ONNX Runtime GenAI: made of a model's files, and what it limits."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.content import ModelFiles
from engines.generation.answering import Limits
from schemas.errors import ModelError
from schemas.model import ModelSpec

MAIN = "genai_config.json"
MOST_SLOTS, MOST_ON_GPU = 18, 36  # one in nine is for answers that a person waits for
READ, READ_ON_GPU = 160, 4096  # tokens of questions in one step
_FLOAT_BYTES = 4


def laid_out(model: ModelFiles, folder: Path) -> Path:
    """Fill an empty folder with a model's files by their names, without copies where links can be made."""
    (folder / MAIN).write_bytes(model.graph)
    for file in model.files:
        source, target = model.folder / file.sha256, folder / file.name
        try:
            os.link(source, target)  # no symbolic link: ONNX Runtime reads no weights outside of the model's folder
        except OSError:
            shutil.copyfile(source, target)
    return folder


def limits_of(model: ModelFiles, card: ModelSpec, kv_bytes: int, on_gpu: bool = False) -> Limits:
    """Return the limits of a model, whose keys and values may take so many bytes. Raises ModelError."""
    return limits_by(card, token_bytes(parsed(model.graph, card.name), card.name), kv_bytes, on_gpu)


def limits_by(card: ModelSpec, token_bytes: int, kv_bytes: int, on_gpu: bool) -> Limits:
    """Return the limits of a model whose token has so many bytes. Raises ModelError if there is no room for a text."""
    context = context_of(card)
    slot_bytes = token_bytes * context
    slots = min(MOST_ON_GPU if on_gpu else MOST_SLOTS, kv_bytes // slot_bytes)
    if slots < 1:
        what = f"model {card.name} keeps {slot_bytes} bytes of a text, and the setting kv_bytes is {kv_bytes}"
        raise ModelError(what, 'raise it, or add the model with a smaller context: --set inputs.0.shape=["N",2048]')
    return Limits(context, slots, slot_bytes, READ_ON_GPU if on_gpu else READ)


def overlay_of(limits: Limits) -> Mapping[str, Any]:
    """Return what is set over a model's own settings: its limits, and one thread."""
    options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    return {
        "model": {"decoder": {"session_options": options}},
        "search": {"max_length": limits.context, "num_beams": 1, "batch_size": 1, "min_length": 0},
    }


def context_of(card: ModelSpec) -> int:
    """Return the tokens that a text and its answer may have together, as the card says. Raises ModelError."""
    size = card.inputs[0].shape[-1] if card.inputs and card.inputs[0].shape else ""
    if not isinstance(size, int) or size < 2:
        raise ModelError(f"model {card.name}: its card states no context", "add it again")
    return size


def most_context(config: Mapping[str, Any], name: str) -> int:
    """Return the most tokens that a model can hold. Raises ModelError."""
    return number_in(config, "model.context_length", name)


def parsed(config: bytes, name: str) -> Mapping[str, Any]:
    """Return a model's settings. Raises ModelError."""
    try:
        found = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model {name}: its {MAIN} is no JSON", "download it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"model {name}: its {MAIN} is no JSON object", "download it again")
    return found


def number_in(config: Mapping[str, Any], path: str, name: str) -> int:
    """Return a number of a model's settings. Raises ModelError."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 40:
        raise ModelError(f"model {name}: its {MAIN} has no number {path}", "download it again")
    return value


def token_bytes(config: Mapping[str, Any], name: str) -> int:
    """Return the bytes of the keys and values of one token, as float32. Raises ModelError."""
    layers, heads, width = (
        number_in(config, f"model.decoder.{key}", name)
        for key in ("num_hidden_layers", "num_key_value_heads", "head_size")
    )
    return 2 * layers * heads * width * _FLOAT_BYTES

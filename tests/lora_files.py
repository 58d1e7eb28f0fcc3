"""Writes LoRAs as .safetensors files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int8": "I8"}


def write_safetensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a file; an array of uint16 is one of bfloat16."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    body = b""
    for name, array in arrays.items():
        given = np.asarray(array)
        kind = _NAMES.get(str(given.dtype), "BF16")
        end = len(body) + given.nbytes
        header[name] = {"dtype": kind, "shape": list(given.shape), "data_offsets": [len(body), end]}
        body += given.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def lora_of(shapes: Mapping[str, tuple[int, ...]], rank: int = 2, seed: int = 0, alpha: float | None = 1.0) -> Any:
    """Arrays of a LoRA of kohya: `shapes` of weights, `[out, in]` or of convolutions, by the names of modules there."""
    rng, made = np.random.default_rng(seed), {}
    for name, (out, *rest) in shapes.items():
        made[f"{name}.lora_down.weight"] = rng.standard_normal((rank, *rest)).astype(np.float32)
        made[f"{name}.lora_up.weight"] = rng.standard_normal((out, rank, *(1 for _ in rest[1:]))).astype(np.float32)
        if alpha is not None:
            made[f"{name}.alpha"] = np.array(alpha, np.float32)
    return made

"""A tiny language model as a folder of CTranslate2: random weights, a byte a token, one block of a GPT-2."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.language import CONTEXT, END, TEMPLATE, VOCABULARY, language_folder

WIDTH, HEADS = 16, 2


def ct2_language_folder(folder: Path, template: str = TEMPLATE, ends: bool = True) -> Path:
    """Make the folder. Without `ends` no answer ends early."""
    specs: Any = pytest.importorskip("ctranslate2").specs
    spec = specs.TransformerDecoderModelSpec.from_config(1, HEADS, activation=specs.Activation.GELU)
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return (rng.integers(-16, 17, shape) / 8).astype(np.float32)

    decoder = spec.decoder
    decoder.embeddings.weight = weights(VOCABULARY, WIDTH)
    decoder.position_encodings.encodings = weights(CONTEXT, WIDTH)
    head = weights(VOCABULARY, WIDTH)
    head[[token for token in range(VOCABULARY) if not (97 <= token < 123 or token in (32, END))]] = 0
    head[END] *= ends
    decoder.projection.weight = head
    block = decoder.layer[0]
    layers = [(block.self_attention.linear[0], 3 * WIDTH, WIDTH), (block.self_attention.linear[1], WIDTH, WIDTH)]
    layers += [(block.ffn.linear_0, 2 * WIDTH, WIDTH), (block.ffn.linear_1, WIDTH, 2 * WIDTH)]
    for layer, rows, columns in layers:
        layer.weight, layer.bias = weights(rows, columns), weights(rows)
    for norm in (block.self_attention.layer_norm, block.ffn.layer_norm, decoder.layer_norm):
        norm.gamma, norm.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    beside = language_folder(folder.parent / f"{folder.name}-genai", template)
    tokenizer = json.loads((beside / "tokenizer.json").read_text())
    words = {**tokenizer["model"]["vocab"], **{each["content"]: each["id"] for each in tokenizer["added_tokens"]}}
    spec.register_vocabulary(sorted(words, key=lambda word: int(words[word])))
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = tokenizer["added_tokens"][0]["content"]
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir()
    spec.save(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (beside / name).is_file():
            (folder / name).write_bytes((beside / name).read_bytes())
    return folder

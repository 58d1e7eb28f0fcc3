"""Folders of faster-whisper: Whisper's networks in CTranslate2's format, of all sizes.

A folder has `config.json`, `model.bin`, `tokenizer.json`, `vocabulary.json` or `.txt`, and with 128 bands of sound
`preprocessor_config.json`. What the network takes and gives follows from the shapes of its weights.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.content import ModelFiles
from engines.inference.ct2_files import DECODER, MODEL_FILE, BinaryModel, kind_of, read_binary
from engines.models.companions.base import Line, Sure, json_of
from engines.speech.network import (
    MAIN_FILE,
    MULTILINGUAL,
    PRECISION,
    PRECISIONS,
    TOKENIZER_FILE,
    arrays_of,
    file_named,
)
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec

_KIND = "WhisperSpec"
_HINT = "download the whole folder again"
_HEAD_WIDTH = 64  # of all Whispers


class WhisperFolder:
    """Recognises a folder by `model.bin`; its backend is CTranslate2."""

    main = MAIN_FILE
    files: Mapping[str, str] = {
        MODEL_FILE: "weights",
        TOKENIZER_FILE: "a tokenizer",
        "vocabulary.*": "a vocabulary",
        "preprocessor_config.json": "how inputs are made",
    }

    def fits(self, folder: Path) -> bool:
        """Whether the folder has CTranslate2's file of weights, which are no language model's."""
        return (folder / MODEL_FILE).is_file() and kind_of(folder / MODEL_FILE) != DECODER

    def lines(self, folder: Path) -> Sequence[Line]:
        """Backend, precision and description of a network."""
        config = json_of(folder / self.main)
        binary = read_binary(folder / MODEL_FILE)
        bands, width, tokens, blocks = _sizes(binary, str(folder))
        _check_heads(config, binary, str(folder))
        for name in (TOKENIZER_FILE, "vocabulary.*"):
            if not any(folder.glob(name)):
                raise ModelError(f"{folder} has no {name}", _HINT)
        languages = "many languages" if tokens >= MULTILINGUAL else "English"
        about = f"Whisper for {languages}: {blocks} blocks of {width}, {bands} bands of sound"
        stated = f"{MODEL_FILE} has the weights of a Whisper in CTranslate2's format"
        anywhere = "every processor and GPU computes it; float16 is faster on GPUs since Volta"
        return [
            Line("description", about, Sure.certain, stated),
            Line("backend", "ctranslate2", Sure.certain, stated),
            Line("precision", PRECISION, Sure.certain, anywhere),
        ]

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """`features [N, bands, 3000]` become `states [N, 1500, width]`, and texts have `logits` of so many tokens."""
        if card.precision not in PRECISIONS:
            given = card.precision or "nothing"
            raise ModelError(f"model `{card.name}`: precision is {given}", f"there are {', '.join(PRECISIONS)}")
        if card.inputs or card.outputs or card.heads:
            raise ModelError(
                f"model `{card.name}`: the card of a Whisper has no inputs, outputs and heads", "omit them"
            )
        path = content.folder / file_named(content.files, MODEL_FILE, card.name).sha256
        file_named(content.files, TOKENIZER_FILE, card.name)
        bands, width, tokens, _ = _sizes(read_binary(path), card.name)
        inputs, outputs = arrays_of(bands, width, tokens)
        return ModelSpec(
            name=card.name,
            version=card.version,
            description=card.description,
            backend=card.backend,
            precision=card.precision,
            inputs=inputs,
            outputs=outputs,
            sha256=card.sha256,
            files=content.files,
        )


def _sizes(binary: BinaryModel, name: str) -> tuple[int, int, int, int]:
    """Bands, width, tokens and blocks of the encoder. Raises ModelError if the network is no Whisper."""
    if binary.kind != _KIND:
        what = f"{name}: {MODEL_FILE} is a network of the kind {binary.kind[:60]}, not of Whisper"
        raise ModelError(what, "rigflow runs Whisper by CTranslate2, and other networks as ONNX")
    first, tokens = binary.shapes.get("encoder/conv1/weight", ()), binary.shapes.get("decoder/embeddings/weight", ())
    if len(first) != 3 or len(tokens) != 2:
        raise ModelError(f"{name}: {MODEL_FILE} lacks weights of a Whisper", _HINT)
    blocks = {each.split("/")[1] for each in binary.shapes if each.startswith("encoder/layer_") and each.count("/") > 1}
    return first[1], first[0], tokens[0], len(blocks - {"layer_norm"})


def _check_heads(config: Mapping[str, Any], binary: BinaryModel, name: str) -> None:
    """Check that words are aligned by heads that are there. Raises ModelError; CTranslate2 would end the process."""
    _, width, _, _ = _sizes(binary, name)
    found = (re.match(r"decoder/layer_(\d+)/", each) for each in binary.shapes)
    blocks = {int(each[1]) for each in found if each}
    given = config.get("alignment_heads", [])
    for each in given if isinstance(given, list) else [given]:
        whole = isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)
        if not whole or each[0] not in blocks or not 0 <= each[1] < width // _HEAD_WIDTH:
            what = f"{name}: {MAIN_FILE}, alignment_heads has {str(each)[:60]}, which the network lacks"
            raise ModelError(what, _HINT)

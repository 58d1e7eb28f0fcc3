"""Finds the networks of a Pocket TTS in a folder, and reads its vocabulary and settings.

Folders have the names of sherpa-onnx (lm_main.int8.onnx, vocab.json, token_scores.json), or those of other exports of
Kyutai's model (flow_lm_main_int8.onnx, tokenizer.model, newer ones with bundle.json).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.models.companions.base import json_of
from engines.models.publishers import POCKET_PAGE
from engines.part import Array
from schemas.errors import ModelError
from schemas.speech import MOST_SYMBOLS

AGAIN = f"download its folder as {POCKET_PAGE} says"
PARTS = ("main", "flow", "encoder", "decoder", "text")
_NAMES = (
    ("lm_main", "lm_flow", "encoder", "decoder", "text_conditioner"),
    ("flow_lm_main", "flow_lm_flow", "mimi_encoder", "mimi_decoder", "text_conditioner"),
)
_FORMS = (".onnx", ".int8.onnx", "_int8.onnx")  # endings of a part's file; fp32 first
_CONTROL = frozenset(("<unk>", "<s>", "</s>", "<pad>"))
_NORMAL, _USER, _BYTE = 1, 4, 6  # kinds of pieces of SentencePiece
_MOST_TOKENIZER = 64 << 20


@dataclass(frozen=True, slots=True)
class PocketFiles:
    """The networks of a Pocket TTS by part. `unknown`: what a size of a state is where its network leaves it open."""

    parts: Mapping[str, Path]
    unknown: int

    @property
    def folder(self) -> Path:
        """Where the language model is."""
        return self.parts["main"].parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What goes with the networks: `temperature` of the random numbers, `after`: frames behind the end, None: some
    more for short texts; `most` pieces of a text; `bos [1, N, width]`: what stands before a voice.
    """

    pieces: Mapping[str, tuple[int, float]]
    temperature: float = 0.7
    after: int | None = None
    most: int = 50
    padded: bool = True
    bos: Array | None = None


def pocket_files(given: Path) -> PocketFiles | None:
    """Return the files of a folder of Pocket TTS, or of the folder of one of its networks; None for others.

    Of a part in two forms, that of `given` is taken, or fp32.
    """
    folder = given if given.is_dir() else given.parent
    first = next((form for form in _FORMS[1:] if not given.is_dir() and given.name.endswith(form)), _FORMS[0])
    forms = (first, *(form for form in _FORMS if form != first))
    for place in (folder, folder / "onnx") if given.is_dir() else (folder,):
        for number, names in enumerate(_NAMES):
            found = [next((place / f"{n}{f}" for f in forms if (place / f"{n}{f}").is_file()), None) for n in names]
            if found[0] is not None and found[1] is not None:
                return PocketFiles(_whole(dict(zip(PARTS, found, strict=True)), names), 1 - number)
    return None


def _whole(found: Mapping[str, Path | None], names: tuple[str, ...]) -> dict[str, Path]:
    """Return the parts. Raises ModelError where one is missing."""
    whole = {part: path for part, path in found.items() if path is not None}
    missing = [name for name, part in zip(names, PARTS, strict=True) if part not in whole]
    if missing:
        where = whole["main"].parent
        raise ModelError(f"{where} is a Pocket TTS without {', '.join(f'{each}.onnx' for each in missing)}", AGAIN)
    return whole


def settings_of(files: PocketFiles) -> Settings:
    """Return what stands beside the networks. Raises ModelError."""
    places = (files.folder, files.folder.parent) if files.folder.name == "onnx" else (files.folder,)

    def beside(name: str) -> Path | None:
        return next((each for place in places if (each := place / name).is_file()), None)

    vocabulary, scores, tokenizer = map(beside, ("vocab.json", "token_scores.json", "tokenizer.model"))
    if vocabulary is not None and scores is not None:
        pieces = _of_json(vocabulary, scores)
    elif tokenizer is not None:
        pieces = _of_tokenizer(tokenizer)
    else:
        what = f"{files.folder} is a Pocket TTS without vocab.json and token_scores.json, or tokenizer.model"
        raise ModelError(what, AGAIN)
    if not pieces or len(pieces) > MOST_SYMBOLS:
        raise ModelError(f"{files.folder}: a vocabulary of {len(pieces)} pieces is none of Pocket TTS", AGAIN)
    bundle = beside("bundle.json")
    return Settings(pieces) if bundle is None else _of_bundle(bundle, pieces)


def _of_json(vocabulary: Path, scores: Path) -> dict[str, tuple[int, float]]:
    numbers, known = json_of(vocabulary), json_of(scores)
    try:
        return {
            piece: (int(number), float(known[piece]))
            for piece, number in numbers.items()
            if piece not in _CONTROL and piece
        }
    except (KeyError, TypeError, ValueError) as error:
        what = f"{vocabulary} and {scores.name} are no vocabulary: {error!r}"
        raise ModelError(what, AGAIN) from error


def _of_tokenizer(path: Path) -> dict[str, tuple[int, float]]:
    """Read the pieces of a SentencePiece model (sentencepiece_model.proto)."""
    found: dict[str, tuple[int, float]] = {}
    try:
        if path.stat().st_size > _MOST_TOKENIZER:
            raise ValueError("it is too large")
        pieces = [value for field, value in _fields(path.read_bytes()) if field == 1 and isinstance(value, bytes)]
        for number, body in enumerate(pieces):
            fields: dict[int, Any] = dict(_fields(body))
            [score] = struct.unpack("<f", fields.get(2, bytes(4)))
            if fields.get(3, _NORMAL) in (_NORMAL, _USER, _BYTE) and (piece := fields[1].decode()):
                found[piece] = number, score
    except (OSError, ValueError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise ModelError(f"{path} is no model of SentencePiece: {error}", AGAIN) from error
    return found


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message of protobuf. Raises ValueError, IndexError."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = body[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(body):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        sizes = {1: 8, 5: 4}
        size = number() if kind == 2 else sizes.get(kind, -1)
        if size < 0 or place + size > len(body):
            raise ValueError(f"a field of kind {kind} at byte {place}")
        yield key >> 3, body[place : place + size]
        place += size


def _of_bundle(path: Path, pieces: Mapping[str, tuple[int, float]]) -> Settings:
    """Return the settings of a newer export."""
    given, bos = json_of(path), None
    try:
        if name := given.get("bos_before_voice_file"):
            bos = np.load(path.with_name(Path(str(name)).name), allow_pickle=False).astype(np.float32)
        after = given.get("model_recommended_frames_after_eos")
        rate, frame = int(given.get("sample_rate", 24000)), int(given.get("samples_per_frame", 1920))
        if (rate, frame) != (24000, 1920):
            raise ValueError(f"{frame} samples a frame at {rate} Hz, not 1920 at 24000")
        return Settings(
            pieces,
            float(given.get("default_temperature", 0.7)),
            None if after is None else max(1, min(50, int(after))),
            max(16, min(400, int(given.get("max_token_per_chunk", 50)))),
            bool(given.get("pad_with_spaces_for_short_inputs", False)),
            None if bos is None else bos.reshape(1, -1, bos.shape[-1]),
        )
    except (OSError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is no bundle of a Pocket TTS: {error}", AGAIN) from error

"""Reads the files beside a model that speaks: settings of Piper, symbols and voices of Kokoro, a tokens.txt."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from engines.models.companions.base import json_of
from engines.models.publishers import KOKORO_PAGE, PIPER_PAGE, SYMBOLS_PAGE
from engines.part import Array
from schemas.errors import ModelError, format_field_error
from schemas.speech import SpeechSpec
from schemas.text import size

VOCODERS = ("vocos*.onnx", "hifigan*.onnx")  # they make sound of what a model of Matcha beside them gives
_LINE = re.compile(r"(\S*)\s+(\d{1,9})\s*")  # of a tokens.txt; a space has no symbol
_STYLE = 256  # numbers of a row of a voice
_MOST_VOICES_BYTES = 1 << 30
_MOST_SPEAKERS = 10_000
_SYMBOL_FILES = ("config.json", "vocab.json", "tokenizer.json")
_ALPHABETS = {"espeak": "ipa", "text": "letters"}


def piper_settings(path: Path) -> tuple[SpeechSpec, float, Path]:
    """Return what `MODEL.onnx.json` says, its length scale, and that file. Raises ModelError."""
    source = path.with_name(f"{path.name}.json")
    if not source.is_file():
        what = f"{path} is a voice of Piper, and {source.name} is not beside it"
        raise ModelError(what, f"download both files of the voice together, as from {PIPER_PAGE}")
    given = json_of(source)
    kind = given.get("phoneme_type", "espeak")
    if not isinstance(kind, str) or kind not in _ALPHABETS:
        what = f"{source}: phoneme_type {str(kind)[:60]} is not known"
        raise ModelError(what, f"take a voice of {' or '.join(_ALPHABETS)}")
    try:
        symbols, inference = given["phoneme_id_map"], given.get("inference", {})
        speakers = given.get("speaker_id_map") or {}
        count = int(given.get("num_speakers", 1))
        if count > _MOST_SPEAKERS:
            what = f"{source}: {count} speakers are more than {_MOST_SPEAKERS}"
            raise ModelError(what, "download it again")
        names = {int(number): str(name) for name, number in speakers.items()}
        pad = tuple(symbols["_"])
        speech = SpeechSpec(
            rate=given["audio"]["sample_rate"],
            alphabet=_ALPHABETS[kind],
            language=given["espeak"]["voice"] if kind == "espeak" else "",
            symbols={each: tuple(ids) for each, ids in symbols.items() if each not in ("_", "^", "$")},
            begin=(*symbols["^"], *pad),
            after=pad,
            end=tuple(symbols["$"]),
            most=2048,
            voices=tuple(names.get(number, str(number)) for number in range(count)) if count > 1 else (),
            noise=(inference.get("noise_scale", 0.667), inference.get("noise_w", 0.8)),
            peak=True,
        )
        return speech, float(inference.get("length_scale", 1.0)), source
    except ValidationError as error:
        raise ModelError(f"{source}, {format_field_error(error.errors()[0])}", "download it again") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ModelError(f"{source} is not the json of a voice of Piper: {error!r}", "download it again") from error


def symbols_in(tokens: Path, what: str, most: int = 1) -> dict[str, int]:
    """Return the number of each symbol of at most `most` characters in a tokens.txt; `what` begins the error.

    Raises ModelError.
    """
    try:
        text = tokens.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{what}, and {tokens.name} beside it cannot be read", "download its folder") from error
    found = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
    return {match[1] or " ": int(match[2]) for match in reversed(found) if len(match[1]) <= most}


def kokoro_symbols(path: Path) -> tuple[dict[str, tuple[int, ...]], Path]:
    """Return the symbols of Kokoro, and the file that has them. Raises ModelError."""
    for name in _SYMBOL_FILES:
        source = next((place / name for place in _places(path) if (place / name).is_file()), None)
        if source is None:
            continue
        found = json_of(source)
        inner = found.get("model")
        vocabulary = found.get("vocab", inner.get("vocab") if isinstance(inner, dict) else None)
        if isinstance(vocabulary, dict) and all(isinstance(each, int) and each >= 0 for each in vocabulary.values()):
            return {symbol: (number,) for symbol, number in vocabulary.items() if number}, source
    what = f"{path} is a Kokoro, and no config.json with its symbols, `vocab`, is beside it"
    raise ModelError(what, f"download config.json from {SYMBOLS_PAGE}")


def kokoro_voices(path: Path) -> tuple[dict[str, Array], list[Path]]:
    """Return the voices of Kokoro by name, sorted, `[rows, 256]` float32, and their files. Raises ModelError."""
    for place in _places(path):
        for source in sorted(place.glob("voices*")):
            if source.is_dir() and (found := _folder(source)):
                return found, sorted(source.glob("*.bin"))
            if source.suffix in (".bin", ".npz") and source.is_file():
                return _archive(source), [source]
    what = f"{path} is a Kokoro, and no voices*.bin, voices*.npz or folder voices is beside it"
    raise ModelError(what, f"download its voices too, as from {KOKORO_PAGE}")


def _places(path: Path) -> list[Path]:
    """Return the folders to look in: that of the model, and the one above a folder `onnx`."""
    folder = path.resolve().parent
    return [folder, folder.parent] if folder.name == "onnx" else [folder]


def _archive(source: Path) -> dict[str, Array]:
    """Read voices of kokoro-onnx: a NumPy archive, whatever its name ends in."""
    try:
        if source.stat().st_size > _MOST_VOICES_BYTES:
            raise ModelError(f"{source} has more than {size(_MOST_VOICES_BYTES)}", "move it away from the model")
        with np.load(source, allow_pickle=False) as archive:
            return {name: _rows(archive[name], source, name) for name in sorted(archive.files)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{source} is no NumPy archive of voices: {reason}", "download it again") from error


def _folder(source: Path) -> dict[str, Array]:
    """Read a file a voice, as of onnx-community: its float32 numbers."""
    found = {}
    for each in sorted(source.glob("*.bin")):
        if each.stat().st_size % (4 * _STYLE):
            raise ModelError(
                f"{each} has {each.stat().st_size} bytes, no rows of {_STYLE} numbers", "download it again"
            )
        found[each.stem] = _rows(np.fromfile(each, "<f4"), each, each.stem)
    return found


def _rows(given: Any, source: Path, name: str) -> Array:
    array = np.asarray(given)
    if array.dtype.kind != "f" or not array.size or array.size % _STYLE or not np.isfinite(array).all():
        raise ModelError(f"{source}: voice {name} is {array.dtype} {list(array.shape)}, no rows of {_STYLE} numbers")
    return np.ascontiguousarray(array.reshape(-1, _STYLE), np.float32)

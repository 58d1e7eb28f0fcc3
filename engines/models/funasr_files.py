"""Reads the files beside FunASR's models: `config.yaml`, `am.mvn`, and `tokens.json` or sherpa-onnx's `tokens.txt`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.models.companions.base import MOST_BYTES
from engines.part import Array
from engines.speech.fbank import BANDS
from schemas.errors import ModelError
from schemas.text import size

CONFIG, MEANS = "config.yaml", "am.mvn"
_TOKENS = ("tokens.json", "tokens.txt")
_MOST_DIGITS = 9
_WHOLE = "download the whole folder again"
_FRONT = {"fs": 16000, "n_mels": BANDS, "frame_length": 25, "frame_shift": 10}  # what `engines.speech.fbank` computes
_SCALAR = re.compile(r"^(\s*)([A-Za-z_]\w*)\s*:\s*(.*?)\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Normalised:
    """How bands become features: `(x + shift) * scale` of stacks, `[80 * stack]` float32, of sound times `gain`."""

    shift: Array
    scale: Array
    stack: int
    hop: int
    gain: float


def config_of(path: Path) -> tuple[dict[str, str], Path | None]:
    """Return the numbers and words of `config.yaml` beside a model, as `{"frontend_conf.lfr_m": "7"}`, and that file.

    FunASR's file has one level of tables, which this reads. It is empty without the file. Raises ModelError.
    """
    source = path.resolve().with_name(CONFIG)
    if not source.is_file():
        return {}, None
    found: dict[str, str] = {}
    table = ""
    for line in _text(source).splitlines():
        if (match := _SCALAR.match(line)) is None:
            continue
        indent, name, value = match.groups()
        if not indent:
            table = name
        if value and not value.startswith(("-", "[", "{")):
            found[f"{table}.{name}" if indent else name] = value.strip("'\"")
    for name, wanted in _FRONT.items():
        given = found.get(f"frontend_conf.{name}", str(wanted))
        if given.strip() not in (str(wanted), f"{wanted}.0"):
            what = f"{source}, frontend_conf.{name}: rigflow hears with {wanted}, not with {given[:40]}"
            raise ModelError(what, "take a model of 16 kHz with 80 bands")
    window = found.get("frontend_conf.window", "hamming")
    if window != "hamming":
        raise ModelError(f"{source}, frontend_conf.window: {window[:40]}", "take a model with Hamming windows")
    return found, source


def tokens_of(path: Path) -> tuple[list[str], Path]:
    """Return the tokens in order, and their file. Raises ModelError."""
    folder = path.resolve().parent
    source = next((folder / name for name in _TOKENS if (folder / name).is_file()), None)
    if source is None:
        what = f"{path} writes what is said, and no {' or '.join(_TOKENS)} is beside it"
        raise ModelError(what, "download its tokens too, and add the folder")
    text = _text(source)
    if source.suffix == ".txt":
        return _numbered(text, source), source
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source} is no JSON: {error}", "download it again") from error
    if isinstance(given, dict):
        given = sorted(given, key=lambda each: given[each] if isinstance(given[each], int) else -1)
    if not isinstance(given, list) or not all(isinstance(each, str) and len(each) <= 256 for each in given):
        raise ModelError(f"{source} is no list of tokens", "download it again")
    return given, source


def _numbered(text: str, source: Path) -> list[str]:
    """Read lines of a token and its number."""
    found: dict[int, str] = {}
    for number, line in enumerate(filter(str.strip, text.split("\n"))):
        token, _, place = line.rstrip().rpartition(" ")
        if not place.isdecimal() or len(place) > _MOST_DIGITS:
            token, place = line.strip(), str(number)
        found[int(place)] = token or " "
    if sorted(found) != list(range(len(found))):
        raise ModelError(f"{source}: its numbers are not 0, 1, 2 ...", "download it again")
    return [found[number] for number in range(len(found))]


def normalised_of(path: Path, metadata: Mapping[str, str], config: Mapping[str, str]) -> tuple[Normalised, Path | None]:
    """Return how features are made, by `am.mvn` beside a model or by its metadata, and that file. Raises ModelError."""
    source = path.resolve().with_name(MEANS)
    try:
        stack = int(config.get("frontend_conf.lfr_m", metadata.get("lfr_window_size", 7)))
        hop = int(config.get("frontend_conf.lfr_n", metadata.get("lfr_window_shift", 6)))
        gain = 1.0 if int(metadata.get("normalize_samples", 0)) else 32768.0
        inside = [_numbers(metadata[name]) for name in ("neg_mean", "inv_stddev") if name in metadata]
    except ValueError as error:
        raise ModelError(f"{path}: its metadata or {CONFIG} have {error}", _WHOLE) from error
    if len(inside) == 2:
        found, given, named = inside, None, f"{path}, neg_mean and inv_stddev"
    elif source.is_file():
        found, given, named = _rows_of(source), source, str(source)
    else:
        what = f"{path} is a model of FunASR, and {MEANS} is not beside it"
        raise ModelError(what, "download the whole folder, and add the folder")
    if not all(np.isfinite(row).all() for row in found):
        raise ModelError(f"{named} has a number that is not finite", _WHOLE)
    if any(row.shape != (BANDS * stack,) for row in found):
        what = f"{named}: {' and '.join(str(len(row)) for row in found)} numbers, and features have {BANDS} x {stack}"
        raise ModelError(what, _WHOLE)
    return Normalised(found[0], found[1], stack, hop, gain), given


def _rows_of(source: Path) -> list[Array]:
    """Read the rows `<AddShift>` and `<Rescale>` of Kaldi's text."""
    text, rows = _text(source), []
    for name in ("AddShift", "Rescale"):
        match = re.search(rf"<{name}>[^\[<]*(?:<LearnRateCoef>[^\[]*)?\[([^\]]*)\]", text)
        if match is None:
            raise ModelError(f"{source} has no <{name}> with numbers", "download it again")
        try:
            rows.append(_numbers(match[1]))
        except ValueError as error:
            raise ModelError(f"{source}, <{name}>: {error}", "download it again") from error
    return rows


def _numbers(text: str) -> Array:
    """Read numbers between spaces or commas."""
    return np.array([float(each) for each in text.replace(",", " ").split()], np.float32)


def _text(source: Path) -> str:
    try:
        if source.stat().st_size > MOST_BYTES:
            raise ModelError(f"{source} has more than {size(MOST_BYTES)}", "download it again")
        return source.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise ModelError(f"cannot read {source}: {error}", "download it again") from error

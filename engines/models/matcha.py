"""Reads Matcha-TTS as sherpa-onnx publishes it: an acoustic model, a vocoder and tokens.txt, as one graph of sound.

The acoustic model makes bands of sound (mel) of symbols, and has its settings in its metadata. A vocoder of HiFi-GAN
makes sound of them; one of Vocos makes a spectrum, of which the graph gets an inverse Fourier transform.

Sources: icefall's egs/ljspeech/TTS/matcha/export_onnx.py (inputs, metadata); sherpa-onnx for blanks between symbols;
torch.istft for the transform with its window.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, version_converter
from pydantic import ValidationError

from engines.inference.weights import parsed_graph
from engines.models.publishers import MATCHA_PAGE, VOCODER_PAGE
from engines.models.voices import VOCODERS
from engines.part import Array
from schemas.errors import ModelError, format_field_error
from schemas.speech import SpeechSpec

INPUTS = frozenset(("x", "x_length", "noise_scale", "length_scale"))
_TOKENS = "tokens.txt"
_MOST = 803  # 401 symbols with blanks around: longer ones lose their end
_NOISE = 0.667
_OPSET = 13  # Slice and Squeeze with their axes as inputs
_LINE = re.compile(r"(\S*)\s+(\d{1,9})\s*")
_PREFIX = "vocoder_"


class Matcha(NamedTuple):
    """A graph with the inputs of the acoustic model and the sound as its output, what its files say, and these."""

    graph: bytes
    speech: SpeechSpec
    files: list[Path]


def read_matcha(body: bytes, path: Path) -> Matcha:
    """Return the model at `path` with the vocoder beside it. Raises ModelError."""
    acoustic = parsed_graph(body, str(path))
    meta = {each.key: each.value for each in acoustic.metadata_props}
    tokens = path.with_name(_TOKENS)
    speech = _speech(meta, tokens, path)
    if meta.get("need_vocoder") == "0":
        return Matcha(_bytes(acoustic), speech, [tokens])
    source = _vocoder_beside(path)
    vocoder = parsed_graph(source.read_bytes(), str(source))
    _check_fit(acoustic, vocoder, path, source, speech.rate)
    spectrum = _spectrum_of(vocoder, source)
    merged = _merged(acoustic, vocoder, path, source)
    if spectrum is not None:
        _add_inverse_transform(merged.graph, spectrum)
    return Matcha(_bytes(merged), speech, [tokens, source])


def _speech(meta: Mapping[str, str], tokens: Path, path: Path) -> SpeechSpec:
    if meta.get("has_espeak", "0") == "0" or meta.get("jieba", "0") != "0" or "zh" in meta.get("voice", ""):
        what = f"{path} is a Matcha that reads by a lexicon, and rigflow speaks by phonemes of espeak-ng"
        raise ModelError(what, f"take an English one, as of {MATCHA_PAGE}")
    if meta.get("n_speakers", "1") not in ("0", "1"):
        raise ModelError(f"{path} is a Matcha of {meta['n_speakers']} speakers", "take one of one speaker")
    try:
        text = tokens.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is a Matcha, and {_TOKENS} beside it cannot be read", "download its folder"
        ) from error
    found = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
    symbols = {match[1] or " ": int(match[2]) for match in reversed(found) if len(match[1]) <= 1}
    try:
        pad, marked = int(meta["pad_id"]), meta.get("use_eos_bos", "0") != "0"
        return SpeechSpec(
            rate=int(meta["sample_rate"]),
            language=meta.get("voice", "en-us"),
            symbols={each: (number,) for each, number in sorted(symbols.items()) if each not in ("_", "^", "$")},
            begin=(pad, symbols["^"], pad) if marked else (pad,),
            after=(pad,),
            end=(symbols["$"], pad) if marked else (),
            most=_MOST,
            noise=(_NOISE, 0.0),
        )
    except ValidationError as error:
        raise ModelError(
            f"{path} with {_TOKENS}, {format_field_error(error.errors()[0])}", "download it again"
        ) from error
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} has no metadata of a Matcha of sherpa-onnx: {error!r}", f"see {MATCHA_PAGE}"
        ) from error


def _vocoder_beside(path: Path) -> Path:
    found = [each for pattern in VOCODERS for each in sorted(path.resolve().parent.glob(pattern))]
    if not found:
        what = f"{path} is a Matcha, and no vocoder is beside it"
        raise ModelError(what, f"download vocos-22khz-univ.onnx from {VOCODER_PAGE} into its folder")
    if len(found) > 1:
        raise ModelError(
            f"{path} has several vocoders beside it: {', '.join(each.name for each in found)}", "leave one"
        )
    return found[0]


def _check_fit(acoustic: Any, vocoder: Any, path: Path, source: Path, rate: int) -> None:
    """Raise ModelError unless the vocoder takes what the acoustic model makes."""
    constants = {each.name for each in vocoder.graph.initializer}
    takes = [each for each in vocoder.graph.input if each.name not in constants]
    if len(takes) != 1 or len(acoustic.graph.output) != 1:
        raise ModelError(f"{source} is no vocoder of {path.name}", f"download one from {VOCODER_PAGE}")
    dims = [each.type.tensor_type.shape.dim for each in (acoustic.graph.output[0], takes[0])]
    bands = [dim[1].dim_value for dim in dims if len(dim) == 3 and dim[1].HasField("dim_value")]
    own = next((int(each.value) for each in vocoder.metadata_props if each.key == "sample_rate"), rate)
    if len(set(bands)) > 1 or own != rate:
        differ = f"{bands[1]} bands of sound, not {bands[0]}" if len(set(bands)) > 1 else f"{own} Hz, not {rate}"
        raise ModelError(f"{source} is a vocoder of {differ}, as {path.name} has", f"see {VOCODER_PAGE}")


class _Spectrum(NamedTuple):
    """How a vocoder's spectrum becomes sound: magnitude, cosine and sine `[1, size / 2 + 1, T]`, by their names."""

    names: tuple[str, str, str]
    size: int
    hop: int
    centred: bool


def _spectrum_of(vocoder: Any, source: Path) -> _Spectrum | None:
    """Return what the outputs of a vocoder of Vocos are; None for one that gives sound. Raises ModelError."""
    outputs = [each.name for each in vocoder.graph.output]
    if len(outputs) == 1:
        return None
    given = {each.key: each.value for each in vocoder.metadata_props}
    meta = {"n_fft": "1024", "hop_length": "256", "win_length": "1024", "center": "1", **given}
    plain = meta.get("normalized", "0") == "0" and meta.get("window_type", "hann") == "hann"
    try:
        size, hop = int(meta["n_fft"]), int(meta["hop_length"])
        if len(outputs) != 3 or not plain or meta["win_length"] != meta["n_fft"] or not 0 < hop <= size <= 1 << 14:
            raise ValueError(
                f"{len(outputs)} outputs, a window {meta.get('window_type', 'hann')} of {meta['win_length']}"
            )
    except ValueError as error:
        raise ModelError(f"{source} is no vocoder that rigflow knows: {error}", f"see {VOCODER_PAGE}") from error
    mag, cosine, sine = (f"{_PREFIX}{name}" for name in outputs)
    return _Spectrum((mag, cosine, sine), size, hop, meta["center"] != "0")


def _merged(acoustic: Any, vocoder: Any, path: Path, source: Path) -> Any:
    """Return one model: the vocoder reads what the acoustic model gives. Raises ModelError."""
    made = acoustic.graph.output[0].name
    try:
        versions = [
            next(each.version for each in model.opset_import if not each.domain) for model in (acoustic, vocoder)
        ]
        newest = max(*versions, _OPSET)
        first, second = (
            model if version == newest else version_converter.convert_version(model, newest)
            for model, version in zip((acoustic, vocoder), versions, strict=True)
        )
        second = compose.add_prefix(second, _PREFIX)
        constants = {each.name for each in second.graph.initializer}
        takes = next(each.name for each in second.graph.input if each.name not in constants)
        for model in (first, second):
            del model.metadata_props[:]
            model.ir_version = max(first.ir_version, second.ir_version)
        return compose.merge_models(first, second, io_map=[(made, takes)])
    except Exception as error:  # onnx raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} and {source.name} do not become one graph: {reason}", "export them again") from error


def _add_inverse_transform(graph: Any, spectrum: _Spectrum) -> None:
    """Make sound of a spectrum, as torch.istft does: frames by an inverse Fourier transform, windowed, added where they
    overlap, and divided by the sum of the squared windows.
    """
    size, half = spectrum.size, spectrum.size // 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    bins = np.arange(half + 1)[:, None]
    weight = np.where((bins == 0) | (2 * bins == size), 1.0, 2.0) / size * window
    angle = 2 * np.pi * bins * np.arange(size) / size
    kernel = np.concatenate([weight * np.cos(angle), -weight * np.sin(angle)])[:, None]

    def put(kind: str, *inputs: str | Array, **attributes: Any) -> str:
        number = len(graph.node)
        names = []
        for place, each in enumerate(inputs):
            name = each if isinstance(each, str) else f"rigflow_istft_{number}_{place}"
            if not isinstance(each, str):
                graph.initializer.append(numpy_helper.from_array(each, name))
            names.append(name)
        graph.node.append(helper.make_node(kind, names, [f"rigflow_istft_{number}"], **attributes))
        return f"rigflow_istft_{number}"

    whole = np.int64
    mag, cosine, sine = spectrum.names
    both = put("Concat", put("Mul", mag, cosine), put("Mul", mag, sine), axis=1)
    frames = put("ConvTranspose", both, kernel.astype(np.float32), strides=[spectrum.hop])
    one_bin = put("Slice", mag, np.array([0], whole), np.array([1], whole), np.array([1], whole))
    ones = put(
        "ConstantOfShape", put("Shape", one_bin), value=helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1])
    )
    squares = put("ConvTranspose", ones, (window**2)[None, None].astype(np.float32), strides=[spectrum.hop])
    sound = put("Div", frames, put("Max", squares, np.array(1e-8, np.float32)))
    if spectrum.centred:
        ends = np.array([half], whole), np.array([-half], whole), np.array([2], whole)
        sound = put("Slice", sound, *ends)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(sound, onnx.TensorProto.FLOAT, [1, 1, "samples"]))


def _bytes(model: Any) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))

"""Reads Matcha-TTS as sherpa-onnx publishes it: an acoustic model, a vocoder and tokens.txt, as one graph of sound.

The acoustic model makes bands of sound (mel) of symbols, and has its settings in its metadata.

Sources: icefall's egs/ljspeech/TTS/matcha/export_onnx.py (inputs, metadata); sherpa-onnx for blanks between symbols.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnx import TensorProto, compose, helper
from pydantic import ValidationError

from engines.inference.weights import parsed_graph
from engines.models.publishers import MATCHA_PAGE
from engines.models.vocoder import Vocoder, add_inverse_transform, metadata_of, of_one_version, vocoder_beside
from engines.models.voices import symbols_in
from schemas.errors import ModelError, format_field_error
from schemas.speech import SpeechSpec

INPUTS = frozenset(("x", "x_length", "noise_scale", "length_scale"))
TOKENS = "tokens.txt"
_MOST = 803  # 401 symbols with blanks around: longer ones lose their end
_NOISE = 0.667


class Matcha(NamedTuple):
    """A graph with the inputs of the acoustic model and the sound as its output, what its files say, and these."""

    graph: bytes
    speech: SpeechSpec
    files: list[Path]


def read_matcha(body: bytes, path: Path) -> Matcha:
    """Return the model at `path` with the vocoder beside it. Raises ModelError."""
    acoustic = parsed_graph(body, str(path))
    meta = metadata_of(acoustic)
    tokens = path.with_name(TOKENS)
    speech = _speech(meta, tokens, path)
    if meta.get("need_vocoder") == "0":
        return Matcha(_bytes(acoustic), speech, [tokens])
    vocoder = vocoder_beside(path, "Matcha", "vocos-22khz-univ.onnx", speech.rate, _bands(acoustic))
    merged = _merged(acoustic, vocoder, path)
    if vocoder.spectrum is not None:
        sound = add_inverse_transform(merged.graph, vocoder.spectrum)
        del merged.graph.output[:]
        merged.graph.output.append(helper.make_tensor_value_info(sound, TensorProto.FLOAT, [1, 1, "samples"]))
    return Matcha(_bytes(merged), speech, [tokens, vocoder.source])


def _speech(meta: Mapping[str, str], tokens: Path, path: Path) -> SpeechSpec:
    if meta.get("has_espeak", "0") == "0" or meta.get("jieba", "0") != "0" or "zh" in meta.get("voice", ""):
        what = f"{path} is a Matcha that reads by a lexicon, and rigflow speaks by phonemes of espeak-ng"
        raise ModelError(what, f"take an English one, as of {MATCHA_PAGE}")
    if meta.get("n_speakers", "1") not in ("0", "1"):
        raise ModelError(f"{path} is a Matcha of {meta['n_speakers']} speakers", "take one of one speaker")
    symbols = symbols_in(tokens, f"{path} is a Matcha")
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
            f"{path} with {TOKENS}, {format_field_error(error.errors()[0])}", "download it again"
        ) from error
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} has no metadata of a Matcha of sherpa-onnx: {error!r}", f"see {MATCHA_PAGE}"
        ) from error


def _bands(acoustic: Any) -> int | None:
    """Return how many bands of sound an acoustic model gives; None if its graph does not say."""
    dim = acoustic.graph.output[0].type.tensor_type.shape.dim
    return int(dim[1].dim_value) if len(dim) == 3 and dim[1].HasField("dim_value") else None


def _merged(acoustic: Any, vocoder: Vocoder, path: Path) -> Any:
    """Return one model: the vocoder reads what the acoustic model gives. Raises ModelError."""
    made = acoustic.graph.output[0].name
    try:
        first, second = of_one_version((acoustic, vocoder.model))
        return compose.merge_models(first, second, io_map=[(made, vocoder.takes)])
    except Exception as error:  # onnx raises many kinds
        reason = " ".join(str(error).split())[:200]
        what = f"{path} and {vocoder.source.name} do not become one graph: {reason}"
        raise ModelError(what, "export them again") from error


def _bytes(model: Any) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))

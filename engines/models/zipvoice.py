"""Makes a voice of a ZipVoice, a sound and its words: one graph of sound, in the form of `engines.models.speech`.

A ZipVoice has a text encoder, which makes a condition for each frame of the words of the sound and of those to speak,
and a decoder, which moves random numbers towards bands of sound in steps, guided by the condition and by the bands of
the sound. Its folder has tokens.txt, and a vocoder that was put into it. In the graph the sound is a constant, the
steps are a loop, and the numbers come from a table.

Sources: k2-fsa/ZipVoice, zipvoice/bin/onnx_export.py (inputs, metadata) and infer_zipvoice_onnx.py (the steps, scale
and level). There, `speed` counts for the words of the sound too, although these frames are cut off; here the encoder
gets the speed at which only the new words are faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, compose, helper
from pydantic import ValidationError

from engines.inference.weights import parsed_graph
from engines.models.pocket_folder import pocket_files
from engines.models.publishers import ZIPVOICE_PAGE
from engines.models.vocoder import (
    Putting,
    Vocoder,
    add_inverse_transform,
    inputs_of,
    metadata_of,
    of_one_version,
    vocoder_beside,
)
from engines.models.voices import symbols_in
from engines.part import Array
from engines.speaking.bands import vocos_bands
from engines.speaking.pinyin import MARKS
from schemas.errors import ModelError, format_field_error
from schemas.speech import Consent, SpeechSpec

ENCODER_INPUTS = ("tokens", "prompt_tokens", "prompt_features_len", "speed")
DECODER_INPUTS = ("t", "x", "text_condition", "speech_condition", "guidance_scale")
TOKENS = "tokens.txt"
NEEDS = "a cloned voice needs --sound, --consent and for a ZipVoice --text, see docs/speak.md"
_NETWORKS = (  # names of the two in their folders: of ZipVoice itself, and of sherpa-onnx
    ("text_encoder.onnx", "fm_decoder.onnx"),
    ("text_encoder_int8.onnx", "fm_decoder_int8.onnx"),
    ("encoder.onnx", "decoder.onnx"),
    ("encoder.int8.onnx", "decoder.int8.onnx"),
)
_SCALE = 0.1  # of the bands, inside of the networks
_LEVEL = 0.1  # what the sound is raised to, root of the mean square
_SHIFT = 0.5  # of the times of the steps: below 1, they are denser at the beginning
_PASS_S = 25.0  # of the sound and what is spoken together, as in infer_zipvoice.py
_LEAST_S = 10.0  # of what is spoken, behind a long sound
_DEFAULTS = {False: (16, 1.0), True: (8, 3.0)}  # steps and guidance; of a distilled one
_AGAIN = f"download its folder as {ZIPVOICE_PAGE} says"
_INT64 = np.int64


class Reference(NamedTuple):
    """The sound of a voice, float32 `[S]` at `rate` Hz of the model, and the symbols of its words."""

    sound: Array
    symbols: Sequence[int]


@dataclass(frozen=True, slots=True)
class ZipVoice:
    """The networks of a folder, and what their files say: `size`, `hop` and `bands` are those of the sound."""

    encoder: Any
    decoder: Any
    path: Path
    speech: SpeechSpec
    size: int
    hop: int
    bands: int


def networks_of(given: Path) -> tuple[Path, Path] | None:
    """Return encoder and decoder of a folder of ZipVoice, or of the folder of a file that is one; None for others."""
    folder = given if given.is_dir() else given.parent
    pairs = [pair for pair in _NETWORKS if given.is_dir() or given.name in pair]
    for encoder, decoder in (tuple(folder / name for name in pair) for pair in pairs):
        if encoder.is_file() and decoder.is_file() and _is_encoder(encoder):
            return encoder, decoder
    return None


def check_voiceless(given: Path) -> None:
    """Raise ModelError for a ZipVoice or a Pocket TTS that is added as it is: it has no voice of its own."""
    kind = "ZipVoice" if networks_of(given) is not None else "Pocket TTS" if pocket_files(given) is not None else ""
    if kind:
        raise ModelError(f"{given} is a {kind}, which speaks with the voice of a sound that is given", NEEDS)


def _is_encoder(path: Path) -> bool:
    try:
        return ENCODER_INPUTS[2].encode() in path.read_bytes()
    except OSError:
        return False


def read_zipvoice(encoder: Path, decoder: Path) -> ZipVoice:
    """Return the networks of two files, and what they and tokens.txt say. Raises ModelError."""
    models = []
    for path, names in ((encoder, ENCODER_INPUTS), (decoder, DECODER_INPUTS)):
        model = parsed_graph(path.read_bytes(), str(path))
        if tuple(each.name for each in inputs_of(model)) != names or model.functions:
            raise ModelError(f"{path} does not take {', '.join(names)}, as a ZipVoice does", _AGAIN)
        models.append(model)
    meta = metadata_of(models[1])
    symbols = symbols_in(encoder.with_name(TOKENS), f"{encoder} is a ZipVoice", most=16)
    letters = metadata_of(models[0]).get("use_espeak", "1") == "0"
    chinese = all(each in symbols for each in MARKS)
    steps, guidance = _DEFAULTS["distill" in encoder.resolve().parent.name]
    try:
        size, hop, bands = (int(meta.get(name, given)) for name, given in _SIZES.items())
        if not 0 < hop <= size <= 1 << 14 or not 0 < bands <= size or int(meta.get("feat_dim", bands)) != bands:
            raise ValueError(f"windows of {size} every {hop} samples, {bands} bands")
        speech = SpeechSpec(
            rate=int(meta.get("sample_rate", 24000)),
            alphabet="pinyin" if chinese else "letters" if letters else "ipa",
            language="" if letters and not chinese else "en-us",
            symbols={each: (number,) for each, number in sorted(symbols.items()) if each != "_"},
            steps=steps,
            guidance=guidance,
        )
    except ValidationError as error:
        raise ModelError(f"{encoder} with {TOKENS}, {format_field_error(error.errors()[0])}", _AGAIN) from error
    except ValueError as error:
        raise ModelError(f"{decoder} has no metadata of a ZipVoice: {error}", _AGAIN) from error
    return ZipVoice(models[0], models[1], encoder, speech, size, hop, bands)


_SIZES = {"n_fft": 1024, "hop_length": 256, "num_mels": 100}


def with_reference(model: ZipVoice, given: Reference, consent: Consent) -> tuple[bytes, SpeechSpec]:
    """Return the graph that speaks with the voice of a sound, and what goes with it. Raises ModelError."""
    rate = model.speech.rate
    vocoder = vocoder_beside(model.path, "ZipVoice", "vocos_24khz.onnx", rate, model.bands)
    level = float(np.sqrt(np.mean(given.sound.astype(np.float64) ** 2)))
    raised = given.sound * (max(1.0, _LEVEL / level))
    frames = vocos_bands(raised, rate, model.size, model.hop, model.bands) * np.float32(_SCALE)
    seconds = len(given.sound) / rate
    room = max(_PASS_S - seconds, _LEAST_S) / seconds * len(given.symbols)
    speech = model.speech.model_copy(update={"most": max(8, int(room)), "consent": consent})
    try:
        return _graph(model, vocoder, frames, given.symbols, min(1.0, level / _LEVEL)), speech
    except Exception as error:  # onnx raises many kinds
        reason = " ".join(str(error).split())[:200]
        what = f"the networks beside {model.path} do not become one graph: {reason}"
        raise ModelError(what, _AGAIN) from error


def _graph(model: ZipVoice, vocoder: Vocoder, frames: Array, symbols: Sequence[int], loudness: float) -> bytes:
    """Return the graph: `symbols`, `speed`, `steps`, `guidance` become the sound; `frames [P, bands]` of the voice."""
    named = [compose.add_prefix(each, prefix) for each, prefix in ((model.encoder, "text_"), (model.decoder, "flow_"))]
    encoder, decoder, last = of_one_version([*named, vocoder.model])
    graph = helper.make_graph([], "zipvoice", _inputs(), [])
    for each in (encoder, decoder, last):
        graph.initializer.extend(each.graph.initializer)
        graph.sparse_initializer.extend(each.graph.sparse_initializer)
    put = Putting(graph, "rigflow_clone")
    prompt = np.array([symbols], _INT64)
    _put_encoder(graph, put, encoder, prompt, len(frames))
    length = put("Slice", put("Shape", encoder.graph.output[0].name), *_from_to(1, 2))
    base = put("ConstantOfShape", put("Concat", np.ones(1, _INT64), length, np.array([model.bands], _INT64), axis=0))
    rest = put("Slice", base, *_from_to(len(frames), 1 << 40, axis=1))
    speech = put("Concat", frames[None], rest, axis=1)
    noise = put("RandomNormalLike", base, dtype=int(TensorProto.FLOAT))
    given = {"x": noise, "text_condition": encoder.graph.output[0].name, "speech_condition": speech}
    bands = _put_steps(graph, put, decoder, given)
    bands = put("Slice", bands, *_from_to(len(frames), 1 << 40, axis=1))
    bands = put("Transpose", put("Mul", bands, np.array(1 / _SCALE, np.float32)), perm=[0, 2, 1])
    _name(graph, "Identity", [bands], vocoder.takes)
    graph.node.extend(last.graph.node)
    sound = vocoder.gives if vocoder.spectrum is None else add_inverse_transform(graph, vocoder.spectrum)
    sound = put("Mul", sound, np.array(loudness, np.float32))
    graph.output.append(helper.make_tensor_value_info(sound, TensorProto.FLOAT, [1, 1, "samples"]))
    imports = {each.domain: each for one in (encoder, decoder, last) for each in one.opset_import}
    made = helper.make_model(graph, opset_imports=list(imports.values()), ir_version=encoder.ir_version)
    return bytes(made.SerializeToString(deterministic=True))


def _inputs() -> list[Any]:
    kinds: Sequence[tuple[str, list[int | str], bool]] = (
        ("symbols", [1, "symbols"], True),
        ("speed", [1], False),
        ("steps", [1], True),
        ("guidance", [1], False),
    )
    return [
        helper.make_tensor_value_info(name, TensorProto.INT64 if whole else TensorProto.FLOAT, shape)
        for name, shape, whole in kinds
    ]


def _put_encoder(graph: Any, put: Putting, encoder: Any, prompt: Array, frames: int) -> None:
    """Feed the text encoder: its speed is such that there are `frames` for the words of the sound at any `speed`."""
    takes = dict(zip(ENCODER_INPUTS, inputs_of(encoder), strict=True))
    new = put("Cast", put("Slice", put("Shape", "symbols"), *_from_to(1, 2)), to=int(TensorProto.FLOAT))
    old = np.array([prompt.shape[1]], np.float32)
    speed = put("Div", put("Add", old, new), put("Add", old, put("Div", new, "speed")))
    _name(graph, "Identity", ["symbols"], takes["tokens"].name)
    _name(graph, "Identity", [put("Identity", prompt)], takes["prompt_tokens"].name)
    length = put("Identity", np.array([frames], _INT64))
    for value, name in ((length, "prompt_features_len"), (speed, "speed")):
        _name(graph, "Reshape", [put("Identity", value), _form(put, takes[name])], takes[name].name)
    graph.node.extend(encoder.graph.node)


def _put_steps(graph: Any, put: Putting, decoder: Any, given: dict[str, str]) -> str:
    """Append the loop of the steps; `given` has what `x`, `text_condition` and `speech_condition` are at first.

    Step i of n goes from time s * a / (1 + (s - 1) * a) with a = i / n to that of i + 1, where s is the shift.
    """
    takes = dict(zip(DECODER_INPUTS, inputs_of(decoder), strict=True))
    for name in ("text_condition", "speech_condition"):
        _name(graph, "Identity", [given[name]], takes[name].name)
    scale = takes["guidance_scale"]
    _name(graph, "Reshape", ["guidance", _form(put, scale)], scale.name)
    count = put("Cast", "steps", to=int(TensorProto.FLOAT))
    value = helper.make_tensor_value_info
    shape: list[int | str] = [1, "frames", "bands"]
    x = takes["x"].name
    inside = [
        value("rigflow_step", TensorProto.INT64, []),
        value("rigflow_more", TensorProto.BOOL, []),
        value(x, TensorProto.FLOAT, shape),
    ]
    body = helper.make_graph([], "step", inside, [])
    within = Putting(body, "rigflow_step", graph)
    number = within("Cast", "rigflow_step", to=int(TensorProto.FLOAT))
    now, then = (
        _time(within, within("Div", each, count)) for each in (number, within("Add", number, np.array(1, np.float32)))
    )
    _name(body, "Reshape", [now, _form(put, takes["t"])], takes["t"].name)
    body.node.extend(decoder.graph.node)
    moved = within("Add", x, within("Mul", decoder.graph.output[0].name, within("Sub", then, now)))
    more = within("Identity", "rigflow_more")
    body.output.extend([value(more, TensorProto.BOOL, []), value(moved, TensorProto.FLOAT, shape)])
    trips = put("Reshape", "steps", np.zeros(0, _INT64))
    return put("Loop", trips, put("Identity", np.array(True)), given["x"], body=body)


def _time(put: Putting, share: str) -> str:
    one, shift = np.array([1], np.float32), np.array([_SHIFT], np.float32)
    return put("Div", put("Mul", share, shift), put("Add", put("Mul", share, shift - one), one))


def _form(put: Putting, tensor: Any) -> str:
    """Return the shape of an input of one number: exporters make a scalar of it, or an array."""
    return put("Identity", np.ones(len(tensor.type.tensor_type.shape.dim), _INT64))


def _name(graph: Any, kind: str, inputs: Sequence[str], name: str) -> None:
    graph.node.append(onnx.helper.make_node(kind, list(inputs), [name]))


def _from_to(begin: int, end: int, axis: int = 0) -> tuple[Array, Array, Array]:
    """Return the inputs of a Slice along an axis."""
    return np.array([begin], _INT64), np.array([end], _INT64), np.array([axis], _INT64)

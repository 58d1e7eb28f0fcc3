"""Takes FunASR's Paraformer and SenseVoice, as FunASR and sherpa-onnx publish them, to one form.

That form is described in `schemas.recogniser`: it takes rows of stacked bands of sound as they are, and gives the most
probable token of each place and its log probability; means and deviations (`am.mvn`) are in the graph, and so is the
choice of tokens, so that a GPU gives a few numbers a chunk. What its files say goes into the metadata of the graph,
where `engines.models.companions.listening` finds it.

Sources: FunASR, export_meta.py of paraformer, bicif_paraformer and sense_voice; sherpa-onnx, add-model-metadata.py of
paraformer and export-onnx.py of sense-voice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper
from pydantic import ValidationError

from engines.models.companions.listening import METADATA
from engines.models.funasr_files import Normalised, config_of, normalised_of, tokens_of
from engines.models.surgery import Surgery
from engines.speech.fbank import BANDS
from schemas.errors import ModelError, format_field_error
from schemas.recogniser import RecogniserSpec

_OPSET = 11
_REDUCE_AXES = 18  # from this opset on, ReduceMax takes its axes as an input
_FEATURES, _FRAMES = ("speech", "x"), ("speech_lengths", "x_length")
_LANGUAGE, _NORM = ("language",), ("textnorm", "text_norm")
_SENSEVOICE = {"zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}  # rows of its table of queries
_CODES = ("zh", "en", "yue", "ja", "ko")  # of which metadata have `lang_zh` and so on
_WHOLE = "download the whole folder again"


@dataclass(frozen=True, slots=True)
class _Form:
    """Names of a graph's inputs; those of language and textnorm are "" for a Paraformer."""

    features: str
    frames: str
    language: str = ""
    norm: str = ""


def listening(graph: bytes, path: Path) -> tuple[bytes, list[Path]] | None:
    """Return a model that writes what is said in the form that travels, and the files beside it that were read.

    None for other models. Raises ModelError: files that belong to it are missing or damaged.
    """
    if not any(name.encode() in graph for name in _FRAMES):  # so others need not be parsed
        return None
    model = Surgery(graph, path.name)
    if METADATA in model.metadata or (form := _form_of(model)) is None:
        return None
    model.check_opset(_OPSET, "writes what is said")
    config, of_config = config_of(path)
    tokens, of_tokens = tokens_of(path)
    normalised, of_norm = normalised_of(path, model.metadata, config)
    try:
        spec = _spec(form, model.metadata, config, tokens, normalised)
    except ValueError as error:  # pydantic's own is one, too
        reason = format_field_error(error.errors()[0]) if isinstance(error, ValidationError) else str(error)
        raise ModelError(f"{path}: its metadata or the files beside it: {reason}", _WHOLE) from error
    _check_sizes(model, spec, form, of_tokens)
    _take_features(model, form, normalised)
    for old, new in ((form.frames, "frames"), (form.language, "language"), (form.norm, "textnorm")):
        if old:
            _take_whole(model, old, new)
    outputs = _give_tokens(model, spec.family == "paraformer")
    for each in outputs:
        model.graph.output.append(each)
    text = spec.model_dump_json(exclude_defaults=True)
    return model.finish({METADATA: text}), [each for each in (of_config, of_tokens, of_norm) if each]


def _form_of(model: Surgery) -> _Form | None:
    """The form of a graph; None where it is no such model. Raises ModelError for kinds that need more than one run."""
    names = {each.name for each in model.inputs}
    outputs = [each.name for each in model.graph.output]
    found = [next((name for name in known if name in names), "") for known in (_FEATURES, _FRAMES, _LANGUAGE, _NORM)]
    features, frames, language, norm = found
    if not features or not frames:
        return None
    if language and norm and len(names) == 4:
        return _Form(*found)
    if "token_num" not in outputs or "logits" not in outputs:
        return None
    if len(names) > 2:
        other = min(names - {features, frames})
        what = f"{model.name} is a Paraformer with the input {other}: one for hot words, or for streams"
        raise ModelError(what, "rigflow runs Paraformer without them: export or download the plain or the large one")
    return _Form(features, frames)


def _spec(
    form: _Form,
    metadata: Mapping[str, str],
    config: Mapping[str, str],
    tokens: Sequence[str],
    normalised: Normalised,
) -> RecogniserSpec:
    same = {"gain": normalised.gain, "stack": normalised.stack, "hop": normalised.hop, "tokens": tuple(tokens)}
    if form.norm:
        languages = {code: int(metadata.get(f"lang_{code}", _SENSEVOICE[code])) for code in _CODES}
        itn = int(metadata.get("with_itn", 14)), int(metadata.get("without_itn", 15))
        any_language = int(metadata.get("lang_auto", 0))
        return RecogniserSpec(family="sensevoice", languages=languages, itn=itn, any_language=any_language, **same)
    chinese = any("一" <= token[:1] <= "鿿" for token in tokens)
    tail = config.get("model_conf.predictor_bias", "0" if config else "1")  # FunASR's default, and all known networks'
    return RecogniserSpec(family="paraformer", languages={"zh" if chinese else "en": 0}, tail=int(tail), **same)


def _check_sizes(model: Surgery, spec: RecogniserSpec, form: _Form, source: Path) -> None:
    """Check that the tokens are as many as the network's, and its features as wide as the stacks."""
    width = _shape(next(each for each in model.inputs if each.name == form.features))[-1]
    if isinstance(width, int) and width != BANDS * spec.stack:
        what = f"{model.name} takes features of {width} numbers, and its files say {BANDS} x {spec.stack}"
        raise ModelError(what, _WHOLE)
    classes = _shape(_logits_of(model))[-1:] or [0]
    if isinstance(classes[0], int) and classes[0] not in (0, len(spec.tokens)):
        what = f"{model.name} knows {classes[0]} tokens, and {source.name} has {len(spec.tokens)}"
        raise ModelError(what, _WHOLE)


def _logits_of(model: Surgery) -> Any:
    """The output with a number for each token; that of a SenseVoice is its first one."""
    return next((each for each in model.graph.output if each.name == "logits"), model.graph.output[0])


def _shape(value: Any) -> list[int | str]:
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param for size in sizes]


def _take_features(model: Surgery, form: _Form, normalised: Normalised) -> None:
    """Take rows of stacked bands: `(x + shift) * scale` stands in front of the network."""
    dtype = next(each.type.tensor_type.elem_type for each in model.inputs if each.name == form.features)
    inner = model.fresh("rigflow_features")
    model.read_instead(form.features, inner)
    model.drop_input(form.features)
    made = model.front("Mul", model.front("Add", "features", normalised.shift), normalised.scale)
    model.front("Cast", made, result=inner, to=dtype)
    shape: list[int | str | None] = ["N", "T", len(normalised.shift)]
    model.graph.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))


def _take_whole(model: Surgery, old: str, new: str) -> None:
    """Take a whole number a chunk, int32, under the name that all such models have."""
    dtype = next(each.type.tensor_type.elem_type for each in model.inputs if each.name == old)
    inner = model.fresh(f"rigflow_{new}")
    model.read_instead(old, inner)
    model.drop_input(old)
    model.front("Cast", new, result=inner, to=dtype)
    model.graph.input.append(helper.make_tensor_value_info(new, TensorProto.INT32, ["N"]))


def _give_tokens(model: Surgery, counted: bool) -> list[Any]:
    """Give the best token of each place and its log probability, and what else a Paraformer says."""
    logits = _logits_of(model).name
    names = [each.name for each in model.graph.output]
    del model.graph.output[:]
    scores = model.behind("LogSoftmax", model.behind("Cast", logits, to=int(TensorProto.FLOAT)), axis=2)
    best = model.behind("ArgMax", scores, axis=2, keepdims=0)
    model.behind("Cast", best, result="tokens", to=int(TensorProto.INT32))
    inputs, attributes = model.axes(2, since=_REDUCE_AXES)
    model.behind("ReduceMax", scores, *inputs, result="log_probs", keepdims=0, **attributes)
    made = [
        helper.make_tensor_value_info("tokens", TensorProto.INT32, ["N", "K"]),
        helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["N", "K"]),
    ]
    if counted:
        model.behind("Cast", "token_num", result="count", to=int(TensorProto.INT32))
        made.append(helper.make_tensor_value_info("count", TensorProto.INT32, ["N"]))
        if {"us_alphas", "us_cif_peak"} <= set(names):
            model.behind("Cast", "us_cif_peak", result="us_peaks", to=int(TensorProto.FLOAT))
            made += [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "U"]) for name in ("us_alphas", "us_peaks")
            ]
    return made

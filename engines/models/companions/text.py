"""Models of pictures and texts (CLIP, SigLIP, MobileCLIP): the vector of pictures, and the tower of texts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines.models.companions.base import Line, Model, Port, Sure, json_of
from engines.models.folders import TEXT_GRAPH, text_graph
from engines.models.towers import BIAS, CUT, IMAGE, SCALE, TEXT

_PICTURES = (IMAGE, "image_features", "embedding", "pooler_output")  # outputs with the vector of a picture
_TEXTS = (TEXT, "text_features", "embedding", "pooler_output")
_CLIP_SCALE = 100.0  # CLIP's training does not let the scale grow beyond it, and ends there
_CANONICAL = "canonicalize"
_LENGTH = 77
_MOST_LENGTH = 8192


def look(model: Model) -> Sequence[Line]:
    """The head and the text of a model that has a graph of texts, or that is one of the two graphs of such a model."""
    vectors = {port.name: port for port in model.outputs if len(port.shape) == 2}
    texts = text_graph(model.path)
    name = next((each for each in _PICTURES if each in vectors), None)
    if name is None and texts is not None and len(vectors) == 1:
        name = next(iter(vectors))
    if model.picture is None or name is None or (name != IMAGE and texts is None):
        return []
    lines = [
        Line("heads.0.kind", "embed", Sure.certain, f"output {name}: its vector of a picture"),
        Line("heads.0.output", name, Sure.certain, f"output {name}: its vector of a picture"),
    ]
    if len(model.outputs) > 1:
        port = vectors[name]
        for field, value in (("name", name), ("dtype", port.dtype), ("shape", list(port.shape))):
            lines.append(Line(f"outputs.0.{field}", value, Sure.certain, "the other outputs are not read"))
    return [*lines, *_text(model, texts)]


def _text(model: Model, texts: Path | None) -> Iterator[Line]:
    config, tokenizer = _fields(model, texts, "config.json"), _found(model, texts, "tokenizer.json")
    if tokenizer is None or not (texts or CUT in model.metadata):
        return
    port, output = (None, TEXT) if texts is None else _ports(texts)
    yield Line("text.graph", TEXT_GRAPH, Sure.certain, "the graph of texts")
    yield Line("text.tokenizer", tokenizer.name, Sure.certain, "the tokenizer beside it")
    if output:
        yield Line("text.output", output, Sure.certain, "the graph of texts")
    settings = _fields(model, texts, "tokenizer_config.json")
    yield _length(config, settings, port)
    yield _pad(json_of(tokenizer), settings)
    if _dict(_dict(config, "text_cfg"), "tokenizer_kwargs").get("clean") == _CANONICAL:
        yield Line("text.canonical", True, Sure.certain, f"config.json, tokenizer_kwargs: clean = {_CANONICAL}")
    yield from _score(model, config)


def _score(model: Model, config: Mapping[str, Any]) -> Iterator[Line]:
    if SCALE in model.metadata:
        why = "tried: its scores of pictures and texts follow from the cosine"
        yield Line("text.scale", float(model.metadata[SCALE]), Sure.certain, why)
        if BIAS in model.metadata:
            yield Line("text.bias", float(model.metadata[BIAS]), Sure.certain, why)
    elif not str(config.get("model_type", "")).startswith("siglip"):
        yield Line("text.scale", _CLIP_SCALE, Sure.guess, "where the training of CLIP ends; only labels need it")


def _length(config: Mapping[str, Any], settings: Mapping[str, Any], port: Port | None) -> Line:
    """How many ids the graph of texts takes."""
    places: tuple[tuple[str, Mapping[str, Any], str], ...] = (
        ("config.json, text_config", _dict(config, "text_config"), "max_position_embeddings"),
        ("config.json, text_cfg", _dict(config, "text_cfg"), "context_length"),
        ("tokenizer_config.json", settings, "model_max_length"),
    )
    if port is not None and isinstance(port.shape[-1], int):
        return Line("text.length", port.shape[-1], Sure.certain, f"the graph of texts takes {port.shape[-1]} ids")
    for file, fields, field in places:
        if isinstance(value := fields.get(field), int) and 2 <= value <= _MOST_LENGTH:
            return Line("text.length", value, Sure.certain, f"{file}: {field}")
    return Line("text.length", _LENGTH, Sure.guess, "that of CLIP")


def _pad(tokenizer: Mapping[str, Any], settings: Mapping[str, Any]) -> Line:
    """What follows a text that is shorter: models that look at these ids were trained with them."""
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    number = _id_of(tokenizer, token) if isinstance(token, str) else None
    if number is not None:
        return Line("text.pad", number, Sure.certain, f"tokenizer_config.json: pad_token = {token}")
    padding = _dict(tokenizer, "padding")
    if isinstance(padding.get("pad_id"), int):
        return Line("text.pad", padding["pad_id"], Sure.certain, "tokenizer.json: padding")
    return Line("text.pad", 0, Sure.guess, "that of open_clip; CLIP's own towers do not look at it")


def _id_of(tokenizer: Mapping[str, Any], token: str) -> int | None:
    for added in tokenizer.get("added_tokens") or []:
        if added.get("content") == token:
            return int(added["id"])
    words = _dict(tokenizer, "model").get("vocab")
    if isinstance(words, dict):
        return words.get(token)
    return next((number for number, (word, *_) in enumerate(words or []) if word == token), None)


def _ports(texts: Path) -> tuple[Port | None, str]:
    """The input of ids of a graph of texts, and its output with the vector, as the file declares them."""
    import onnx

    with suppress(Exception):  # protobuf's own error classes; that the graph cannot be read is said when it is loaded
        graph = onnx.load(str(texts), load_external_data=False).graph
        ids = next((each for each in graph.input if each.name in ("input_ids", "text")), graph.input[0])
        shape = tuple(size.dim_value or "" for size in ids.type.tensor_type.shape.dim)
        outputs = [each.name for each in graph.output]
        named = next((each for each in _TEXTS if each in outputs), "")
        return Port(ids.name, "int64", shape) if shape else None, named if len(outputs) > 1 else ""
    return None, ""


def _found(model: Model, texts: Path | None, name: str) -> Path | None:
    """A file beside the graph of texts, that of pictures, or above their folder."""
    if texts is not None:
        for place in (texts.parent, texts.parent.parent):
            if texts.parent != model.folder.resolve() and (place / name).is_file():
                return place / name
    return model.configured(name)


def _fields(model: Model, texts: Path | None, name: str) -> dict[str, Any]:
    path = _found(model, texts, name)
    return {} if path is None else json_of(path)


def _dict(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}

"""Vectors of texts, by the text tower of a model; they compare with the vectors that it makes of pictures.

The tokenizer is the model's own `tokenizer.json`, read by Hugging Face's library tokenizers (the extra `search`).
"""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import Content, ModelFiles
from engines.extras import imported
from engines.own_process import in_own_process
from engines.part import Array
from engines.vectors import unit
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec, TensorSpec
from schemas.model_files import TextSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AT_ONCE = 16  # texts in one run
_IDS, _MASK, _PLACES, _KINDS = ("input_ids", "text"), "attention_mask", "position_ids", "token_type_ids"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation) | {ord("_"): " "}
_HINT = "its graph of texts, or its tokenizer, is damaged: add the model again"


def check_text(card: ModelCard | ModelSpec) -> None:
    """Raise ModelError if a card names a graph of texts or a tokenizer that is no file of the model."""
    for name in (card.text.graph, card.text.tokenizer) if card.text else ():
        tower_file(card, name)


def embed_texts(spec: ModelSpec, content: Content, texts: Sequence[str]) -> Array:
    """Return a vector for each text, `[N, D]` float32 of unit length, computed in a process of its own.

    Raises ModelError if the model has no text tower or fails, PluginMissing if tokenizers is not installed.
    """
    if spec.text is None:
        hint = "add a folder with text_model.onnx and tokenizer.json, or search by a picture: "
        hint += "`rigflow search LIBRARY --like FILE`"
        raise ModelError(f"model {spec.name} has no text tower", hint)
    check_text(spec)
    return in_own_process(spec.name, "runs", _HINT, _embed, spec, content, list(texts))


def _embed(spec: ModelSpec, content: Content, texts: Sequence[str]) -> Array:
    from engines.inference.onnxruntime import load, tensors_of
    from engines.inference.trial import limit_memory

    limit_memory()
    assert spec.text is not None
    assert isinstance(content, ModelFiles), "a model with a text tower has files"
    ids, mask = token_ids((content.folder / tower_file(spec, spec.text.tokenizer)).read_text(), spec.text, texts)
    graph = (content.folder / tower_file(spec, spec.text.graph)).read_bytes()
    session = load(ModelFiles(graph, content.files, content.folder), spec.name, once=True)
    inputs, outputs = tensors_of(session)
    output = output_of(spec, outputs)
    at_once = 1 if any(tensor.shape[:1] == (1,) for tensor in inputs) else _AT_ONCE
    made = []
    for first in range(0, len(texts), at_once):
        rows = slice(first, first + at_once)
        feed = {tensor.name: fed(spec, tensor.name, ids[rows], mask[rows]).astype(tensor.dtype) for tensor in inputs}
        made.append(np.asarray(session.run([output], feed)[0], np.float64))
    vectors = np.concatenate(made)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        what = f"model {spec.name}: its graph of texts gives {output} {list(vectors.shape)}"
        raise ModelError(what, "name the output with a vector for each text: text.output")
    return unit(vectors)


def token_ids(tokenizer: str, text: TextSpec, texts: Sequence[str]) -> tuple[Array, Array]:
    """Return the ids of texts and the mask of those that are no padding, both `[N, length]` int64.

    `tokenizer` is the text of a tokenizer.json. Raises ModelError, PluginMissing.
    """
    ids, mask, _ = ids_of(tokenizer_of(tokenizer), text, texts)
    return ids, mask


def ids_of(tokenizer: "Tokenizer", text: TextSpec, texts: Sequence[str]) -> tuple[Array, Array, list[bool]]:
    """Return as `token_ids`, and which of the texts are whole: others have more tokens than `text.length`."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(text.length)
    ids = np.full((len(texts), text.length), text.pad, np.int64)
    mask, whole = np.zeros_like(ids), list[bool]()
    given = [_canonical(each) if text.canonical else each for each in texts]
    for number, each in enumerate(tokenizer.encode_batch(given)):
        ids[number, : len(each.ids)] = each.ids
        mask[number, : len(each.ids)] = 1
        whole.append(not each.overflowing)
    return ids, mask, whole


def output_of(spec: ModelSpec, outputs: Sequence[TensorSpec]) -> str:
    """Return the output of the graph of texts that has the vectors. Raises ModelError if there is none."""
    output = (spec.text.output if spec.text else "") or outputs[0].name
    if output not in [each.name for each in outputs]:
        raise ModelError(f"model {spec.name}: its graph of texts has no output {output}", "correct text.output")
    return output


def _canonical(text: str) -> str:
    """Without punctuation, in small letters, a blank between words: open_clip's `canonicalize_text`."""
    return " ".join(text.translate(_NO_PUNCTUATION).lower().split())


def tokenizer_of(text: str) -> "Tokenizer":
    """Return the tokenizer of a tokenizer.json. Raises ModelError, PluginMissing."""
    tokenizers = imported("tokenizers", "searching by words", "search")
    try:
        made: Tokenizer = tokenizers.Tokenizer.from_str(text)
        return made
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"tokenizer.json cannot be read: {reason}", "download it again and add the model") from error


def tower_file(card: ModelCard | ModelSpec, name: str) -> str:
    """Return the hash of a file of the model, which is its name where it is stored. Raises ModelError."""
    for file in card.files:
        if file.name == name:
            return file.sha256
    files = ", ".join(file.name for file in card.files) or "none"
    raise ModelError(f"model {card.name}: text names {name}, which is no file of it", f"its files are: {files}")


def fed(spec: ModelSpec, name: str, ids: Array, mask: Array) -> Any:
    """Return what an input of the graph of texts gets, by its name. Raises ModelError for one that is not known."""
    if name in _IDS:
        return ids
    if name == _MASK:
        return mask
    if name == _PLACES:
        return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    if name == _KINDS:
        return np.zeros_like(ids)
    raise ModelError(f"model {spec.name}: nothing feeds the input {name} of its graph of texts", "export it without")

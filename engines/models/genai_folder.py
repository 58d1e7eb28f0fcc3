"""Folders of ONNX Runtime GenAI: language models with their tokenizer and chat template.

A folder has `genai_config.json`, the graph that it names with its weights, `tokenizer.json`, and for chat
`chat_template.jinja` or a template in `tokenizer_config.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.content import ModelFiles
from engines.generation.chat_template import check_template
from engines.inference.genai_folder import MAIN, most_context, parsed, token_bytes
from engines.models.companions.base import Line, Sure
from engines.models.language_models import language_spec
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec

BACKEND = "onnxruntime-genai"
MOST_CONTEXT = 8192  # that is proposed; a model may be added with more
_HINT = "download the whole folder again"
_LIBRARY = "custom_ops_library"
_OTHERS = ("encoder", "vision", "speech", "embedding", "pipeline")


class GenAiFolder:
    """Recognises a folder by `genai_config.json`; its backend is onnxruntime-genai."""

    main = MAIN
    files: Mapping[str, str] = {
        "*.onnx": "a graph",
        "*.onnx.data": "weights",
        "*.onnx_data": "weights",
        "tokenizer.json": "a tokenizer",
        "tokenizer.model": "a tokenizer",
        "tokenizer_config.json": "a tokenizer's settings",
        "special_tokens_map.json": "a tokenizer's settings",
        "added_tokens.json": "a tokenizer's settings",
        "vocab.json": "a vocabulary",
        "merges.txt": "a vocabulary",
        "chat_template.jinja": "the chat template",
    }

    def fits(self, folder: Path) -> bool:
        """Whether it is one: a folder with the main file is."""
        return True

    def lines(self, folder: Path) -> Sequence[Line]:
        """Backend, description and context of a model."""
        config = parsed((folder / self.main).read_bytes(), str(folder))
        check_config(config, [each.name for each in folder.iterdir()], str(folder))
        check_template(folder)
        model = config["model"]
        length = most_context(config, str(folder))
        stated = f"{self.main} describes a language model of ONNX Runtime GenAI"
        bounded = f"of the {length} tokens that it can hold; more need more memory"
        kind = model.get("type")
        about = f"a language model, {kind}" if isinstance(kind, str) and kind.isprintable() else "a language model"
        return [
            Line("description", about[:200], Sure.certain, stated),
            Line("backend", BACKEND, Sure.certain, stated),
            Line("inputs.0.name", "tokens", Sure.certain, stated),
            Line("inputs.0.dtype", "int32", Sure.certain, stated),
            Line("inputs.0.shape", ["N", min(length, MOST_CONTEXT)], Sure.certain, bounded),
        ]

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """`tokens [N, context]`: a text and its answer have at most so many together."""
        config = parsed(content.graph, card.name)
        check_config(config, [file.name for file in content.files], card.name)
        return language_spec(card, content, most_context(config, card.name))


def check_config(config: Mapping[str, Any], names: Sequence[str], model: str) -> None:
    """Raise ModelError for a config that names files which are none of the model, or is of another kind of model."""
    found = config.get("model")
    if not isinstance(found, dict) or not isinstance(found.get("decoder"), dict):
        raise ModelError(f"model {model}: its {MAIN} describes no language model", _HINT)
    if others := [key for key in _OTHERS if found.get(key)]:
        raise ModelError(f"model {model}: it has a part `{others[0]}`", "rigflow runs models that take text alone")
    token_bytes(config, model)
    for key, value in _entries(config):
        if key == _LIBRARY and value:
            raise ModelError(f"model {model}: its {MAIN} names a library of its own", "rigflow loads no code of models")
        if key == "filename" and value not in names:
            raise ModelError(f"model {model}: its {MAIN} names the file {str(value)[:100]}, which it lacks", _HINT)
    for name in (str(found["decoder"].get("filename")), "tokenizer.json"):
        if name not in names:
            raise ModelError(f"model {model} has no {name}", _HINT)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of nested objects, with its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)

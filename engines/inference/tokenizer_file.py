"""Reads a model's `tokenizer.json` by the package tokenizers."""

from typing import Any

from engines.content import ModelFiles
from engines.extras import imported
from engines.inference.reasons import one_line
from engines.speech.network import TOKENIZER_FILE, file_named
from schemas.errors import ModelError
from schemas.model import ModelSpec


def tokenizer_of(model: ModelFiles, spec: ModelSpec, extra: str) -> Any:
    """The tokenizers.Tokenizer of a model; `extra` has the package. Raises PluginMissing, or ModelError: the file is
    damaged.
    """
    tokenizers = imported("tokenizers", f"model {spec.name}", extra)
    path = model.folder / file_named(spec.files, TOKENIZER_FILE, spec.name).sha256
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # its library raises bare Exception
        raise ModelError(f"model {spec.name}: tokenizer.json is damaged: {one_line(error)}", "add it again") from error

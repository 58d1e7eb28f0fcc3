"""Reads a model's `tokenizer.json` by the package tokenizers."""

from importlib import import_module
from typing import Any

from engines.content import ModelFiles
from engines.extras import install_extra
from engines.inference.reasons import one_line
from engines.speech.network import TOKENIZER_FILE, file_named
from schemas.errors import ModelError
from schemas.model import ModelSpec


def imported(name: str, spec: ModelSpec) -> Any:
    """A package of the extra stt. Raises ModelError where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        what = f"model {spec.name} needs the package {name}, which is missing"
        raise ModelError(what, install_extra("stt")) from error


def tokenizer_of(model: ModelFiles, spec: ModelSpec) -> Any:
    """The tokenizers.Tokenizer of a model. Raises ModelError: that package is missing, or the file is damaged."""
    tokenizers = imported("tokenizers", spec)
    path = model.folder / file_named(spec.files, TOKENIZER_FILE, spec.name).sha256
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # its library raises bare Exception
        raise ModelError(f"model {spec.name}: tokenizer.json is damaged: {one_line(error)}", "add it again") from error

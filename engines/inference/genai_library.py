"""ONNX Runtime GenAI as a library: its import, its errors, and a model that it loads when it is needed."""

import json
from typing import Any

from engines.content import ModelFiles
from engines.extras import imported
from engines.generation.answering import Limits
from engines.inference.genai_folder import laid_out, overlay_of
from engines.scratch import ScratchFolder
from schemas.errors import ModelError

LIBRARY_ERRORS = (RuntimeError, ValueError, MemoryError)


def library() -> Any:
    """Return the module of the library. Raises PluginMissing where it is not installed."""
    return imported("onnxruntime_genai", "a language model", "llm")


def in_a_line(error: Exception) -> str:
    """Return what the library says of an error."""
    return " ".join(str(error).split())[:300] or type(error).__name__


class GenAiModel:
    """The folder of a model as the library reads it, on the CPU by one thread or on the GPU of number `gpu`.

    `name` is for errors. Raises ModelError.
    """

    def __init__(self, files: ModelFiles, limits: Limits, gpu: int | None, name: str) -> None:
        self.og = library()
        self._name = name
        self._folder = ScratchFolder("genai")
        self._model: Any = None
        try:
            self._config = self.og.Config(str(laid_out(files, self._folder.path)))
            self._config.overlay(json.dumps(overlay_of(limits)))
            self._config.clear_providers()
            if gpu is not None:
                self._config.append_provider("cuda")
                self._config.set_provider_option("cuda", "device_id", str(gpu))
            self.tokenizer: Any = self.og.Tokenizer(self._config)
        except LIBRARY_ERRORS as error:
            self._folder.remove()
            raise self._damaged(error) from error

    @property
    def loaded(self) -> Any:
        """The library's model; its weights are loaded by the first call."""
        if self._model is None:
            try:
                self._model = self.og.Model(self._config)
            except LIBRARY_ERRORS as error:
                raise self._damaged(error) from error
        return self._model

    def close(self) -> None:
        """Free the memory, and remove the folder."""
        self.tokenizer = self._model = self._config = None
        self._folder.remove()

    def _damaged(self, error: Exception) -> ModelError:
        return ModelError(f"model {self._name} cannot be loaded: {in_a_line(error)}", "download it again")

"""Where models come from: those that rigflow builds from formulas, and those that users bring as ONNX files."""

import hashlib
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from engines.inference.onnxruntime import check_card, read_tensors
from engines.models.fit import check_fits
from schemas.errors import ModelError
from schemas.pipeline import ModelSpec

__all__ = ["builtin_model", "builtin_models", "check_fits", "load_model"]

_BUILTIN = ("fingerprint", "lanczos2x", "shotchange", "paced")


def builtin_models() -> tuple[str, ...]:
    """Names of the models that come with rigflow."""
    return _BUILTIN


@cache
def builtin_model(name: str) -> tuple[ModelSpec, bytes]:
    """Card and ONNX file of a model of rigflow, as `name` or `name@version`. Raises ModelError when there is none."""
    bare, _, version = name.partition("@")
    if bare in _BUILTIN:
        # the builders import onnx, which takes a third of a second that only whoever publishes has to pay
        spec, body = import_module(f"engines.models.{bare}").build()
        if version in ("", spec.version):
            return spec, body
    raise ModelError(
        f"no model `{name}`", f"rigflow has {', '.join(_BUILTIN)}; bring others as ONNX, see docs/models.md"
    )


def load_model(path: Path, card_path: Path | None = None) -> tuple[ModelSpec, bytes]:
    """Card and content of a user's ONNX file.

    The card is a TOML file; what it leaves out (all of it, without a card) follows from the file's name and its
    graph. Raises ModelError when either cannot be read, the model cannot be loaded, or the two disagree.
    """
    body = _read(path)
    card = {} if card_path is None else _read_card(card_path)
    inputs, outputs = read_tensors(body, str(path))
    digest = hashlib.sha256(body).hexdigest()
    if card.get("sha256", digest) != digest:
        raise ModelError(f"model {path} is not the file its card {card_path} was made for", "correct its sha256")
    derived = {"name": path.stem, "inputs": inputs, "outputs": outputs}
    try:
        spec = ModelSpec.model_validate({**derived, **card, "sha256": digest})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"model card {card_path}, {field}: {first['msg']}", "see docs/models.md") from error
    check_card(spec, inputs, outputs)
    return spec, body


def _read_card(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(_read(path).decode())
    except ValueError as error:  # not TOML, or not even text
        raise ModelError(f"model card {path}: not TOML, {error}", "see docs/models.md") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error

"""Where models come from: those that rigflow builds from formulas, and those that users bring as ONNX files.

A user's models are known by name in `models_folder`: `NAME.onnx`, with `NAME.toml` as its model card.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from engines.atomic_write import atomic_write
from engines.files import PartFile
from engines.inference import trial
from engines.inference.weights import with_weights_inside
from engines.models.batchless import with_batch
from engines.own_process import in_own_process
from schemas.errors import ModelError, ModelMissing
from schemas.pipeline import ModelSpec
from schemas.settings import home_folder

_BUILTIN = ("fingerprint", "lanczos2x", "shotchange", "simulated")
EXPORTS = {"x3d_s": "X3D_S.pyth"}  # models that `rigflow engine export` makes, and the file that has their weights


def builtin_models() -> tuple[str, ...]:
    """Names of the models that come with rigflow."""
    return _BUILTIN


@cache
def builtin_model(name: str, keep: Path | None = None) -> tuple[ModelSpec, bytes]:
    """Model card and ONNX file of a built-in model, `name` or `name@version`. Raises ModelError when there is none.

    What was built stays in the folder `keep`, for building imports onnx, which takes a third of a second.
    """
    bare, _, version = name.partition("@")
    if bare in _BUILTIN:
        spec, body = _kept(bare, keep) if keep else _build(bare)
        if version in ("", spec.version):
            return spec, body
    raise ModelError(
        f"no model `{name}`", f"rigflow has {', '.join(_BUILTIN)}; bring others as ONNX, see docs/models.md"
    )


def _build(name: str) -> tuple[ModelSpec, bytes]:
    spec, body = import_module(f"engines.models.{name}").build()
    return spec, body


def _kept(name: str, keep: Path) -> tuple[ModelSpec, bytes]:
    """A model as an earlier run built it from the same source, or built now and kept: its model card, then its file."""
    sources = b"".join(Path(__file__).with_name(f"{each}.py").read_bytes() for each in (name, "graph"))
    path = keep / f"{name}-{hashlib.sha256(sources).hexdigest()[:16]}.model"
    with suppress(OSError, ValueError):
        card, _, body = path.read_bytes().partition(b"\n")
        spec = ModelSpec.model_validate_json(card)
        if hashlib.sha256(body).hexdigest() == spec.sha256:
            return spec, body
    spec, body = _build(name)
    with suppress(OSError):  # it only saves time
        atomic_write(path, spec.model_dump_json().encode() + b"\n" + body)
    return spec, body


def models_folder() -> Path:
    """Where a user's models are looked for, whichever pipeline names them."""
    return home_folder() / ".local" / "share" / "rigflow" / "models"


def own_model(name: str, folder: Path | None = None) -> tuple[ModelSpec, bytes]:
    """Model card and content of the user's model `name`, in `folder` (the pipeline file's) or in `models_folder`.

    Raises ModelError when it is in neither (ModelMissing), or as `load_model` does.
    """
    places = [place / f"{name}.onnx" for place in (folder, models_folder()) if place is not None]
    found = next((path for path in places if path.exists()), None)
    if found is not None:
        return load_model(found)
    hint = f"put its ONNX file at {places[0]}"
    if name in EXPORTS:
        hint = f"make it by `rigflow engine export {name} --weights {EXPORTS[name]}`"
    raise ModelMissing(f"model {name} is missing", hint)


def save_model(folder: Path, spec: ModelSpec, body: bytes) -> Path:
    """Write `NAME.onnx` and its model card into `folder`, made if missing; the model's path. Raises OutputError."""
    path = folder / f"{spec.name}.onnx"
    files = [PartFile.create(path), PartFile.create(path.with_suffix(".toml"))]
    try:
        for file, content in zip(files, (body, card_toml(spec).encode()), strict=True):
            file.write(content)
        for file in files:
            file.commit()
    finally:
        for file in files:
            file.discard()
    return path


def card_toml(spec: ModelSpec) -> str:
    """A model card as TOML; `load_model` reads the same back."""
    head = {"name": spec.name, "version": spec.version, "description": spec.description, "sha256": spec.sha256}
    lines = [_toml(head)]
    for side, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        lines += [f"[[{side}]]\n{_toml(tensor.model_dump(mode='json', exclude_none=True))}" for tensor in tensors]
    return "\n".join(lines)


def _toml(fields: Mapping[str, object]) -> str:
    """Strings, numbers and lists of them look in TOML as in json."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())


def load_model(path: Path, card_path: Path | None = None, take_weights: bool = False) -> tuple[ModelSpec, bytes]:
    """Model card and content of a user's ONNX file.

    The model card is a TOML file, by default the one beside the model; what it leaves out (all of it, without a card)
    follows from the file's name and its graph. With `take_weights`, weights in files beside the model become part of
    it; with `batch = "none"` in the model card, so does the batch that its graph lacks. The model card's shapes are
    those with a batch. Raises ModelError when a file cannot be read, the model cannot be loaded or run, or model card
    and graph disagree.
    """
    body = _read(path)
    if card_path is None and (beside := path.with_suffix(".toml")).exists():
        card_path = beside
    card = {} if card_path is None else _read_card(card_path)
    digest = hashlib.sha256(body).hexdigest()
    if card.get("sha256", digest) != digest:
        raise ModelError(f"model {path} is not the file its model card {card_path} was made for", "correct its sha256")
    source = f"model {path}" if card_path is None else f"model card {card_path}"
    if take_weights:
        body = with_weights_inside(body, path)
    match card.pop("batch", "rows"):
        case "none":
            body = with_batch(body, str(path))
        case "rows":
            pass
        case other:
            raise ModelError(f"{source}, batch: {other}", 'say "rows", or "none" for a graph without a batch')
    fields = {"name": path.stem, **card, "sha256": hashlib.sha256(body).hexdigest()}
    spec = in_own_process(str(path), "loads", trial.HINT, trial.read_model, body, str(path), fields, source)
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

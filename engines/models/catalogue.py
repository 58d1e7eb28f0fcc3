"""Finds models: those that rigflow builds from formulas, and those that users provide as ONNX files.

A user's models have names in `models_folder`: `NAME.onnx`, with `NAME.toml` as its model card.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from engines.content import Content, ModelFiles, graph_of, with_graph
from engines.files import PartFile, atomic_write
from engines.inference.trial import HINT
from engines.inference.weights import check_size
from engines.models.card_file import read_card, read_file
from engines.models.card_text import card_toml
from engines.models.folder_kinds import described, kind_of_backend
from engines.models.packaged import packaged_model
from engines.models.publishers import where_to_get
from engines.models.reading import read_model
from engines.own_process import in_own_process
from schemas.errors import ModelError, ModelMissing, format_field_error
from schemas.model import ModelCard, ModelSpec
from schemas.settings import home_folder

_BUILTIN = ("fingerprint", "lanczos2x", "shotchange")


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
    """Return a model card and file that an earlier run built from the same source, or build and store them now."""
    sources = b"".join(Path(__file__).with_name(f"{each}.py").read_bytes() for each in (name, "graph"))
    path = keep / f"{name}-{hashlib.sha256(sources).hexdigest()[:16]}.model"
    with suppress(OSError, ValueError):
        card, _, body = path.read_bytes().partition(b"\n")
        spec = ModelSpec.model_validate_json(card)
        if hashlib.sha256(body).hexdigest() == spec.sha256:
            return spec, body
    spec, body = _build(name)
    with suppress(OSError):  # the stored copy only saves time
        atomic_write(path, spec.model_dump_json().encode() + b"\n" + body)
    return spec, body


def models_folder() -> Path:
    """Return the folder of a user's models, for all pipelines."""
    return home_folder() / ".local" / "share" / "rigflow" / "models"


def own_model(name: str, folder: Path | None = None) -> tuple[ModelSpec, Content]:
    """Return model card and content of the user's model `name`, in `folder` (of the pipeline file) or `models_folder`,
    or of an installed package.

    Raises ModelError if it is in neither (ModelMissing), or as `load_model` does.
    """
    places = [place for place in (folder, models_folder()) if place is not None]
    found = next((path for place in places if (path := main_file(place, name))), None)
    if found is not None:
        return load_model(found)
    if (packaged := packaged_model(name)) is not None:
        path, packaged_card, body = packaged
        return travelling(path, packaged_card, body)
    raise ModelMissing(f"model {name} is missing", where_to_get(name) or _there(name, places))


def _there(name: str, places: Sequence[Path]) -> str:
    """What there is in the place of a model that is missing: those of a similar name, or those of the user."""
    own = sorted({path.stem for place in places for path in main_files(place)})
    near = get_close_matches(name, [*_BUILTIN, *own], 3)
    shown = near or own[:8]
    more = f" and {len(own) - len(shown)} more" if not near and len(own) > len(shown) else ""
    there = f"{', '.join(shown)}{more} {'is' if len(shown) == 1 else 'are'} there; " if shown else ""
    return f"{there}`rigflow model add FILE` keeps a model, `rigflow model list` lists those there are"


def is_there(name: str) -> bool:
    """Return whether a model of this name is built in, the user's own, or of an installed package; it is not read."""
    return name in _BUILTIN or main_file(models_folder(), name) is not None or packaged_model(name) is not None


def main_files(folder: Path) -> list[Path]:
    """Return the main files of all models in a folder, sorted: `NAME.onnx`, or `NAME.json` with its card beside it."""
    of_folders = (path for path in folder.glob("*.json") if path.with_suffix(".toml").is_file())
    return sorted((*folder.glob("*.onnx"), *of_folders), key=lambda path: path.stem)


def main_file(folder: Path, name: str) -> Path | None:
    """Return the main file of a model in a folder, None if it is not there."""
    graph, settings = folder / f"{name}.onnx", folder / f"{name}.json"
    if graph.exists():
        return graph
    return settings if settings.exists() and settings.with_suffix(".toml").is_file() else None


def save_model(folder: Path, card: ModelCard | ModelSpec, content: Content) -> Path:
    """Write the main file of a model, `NAME.onnx` or `NAME.json` of one that is a folder, and its card into `folder`.

    The folder is made if missing; returns the path of the former. Raises OutputError. A card from `read_files` is
    stored as its owner wrote it, and a served model unchanged: `load_model` returns the same model for both. Further
    files of the model are in `folder` already.
    """
    path = folder / f"{card.name}.{'onnx' if kind_of_backend(card.backend) is None else 'json'}"
    files = [PartFile.create(path), PartFile.create(path.with_suffix(".toml"))]
    try:
        for file, body in zip(files, (graph_of(content), card_toml(card).encode()), strict=True):
            file.write(body)
        for file in files:
            file.commit()
    finally:
        for file in files:
            file.discard()
    return path


def load_model(path: Path, card_path: Path | None = None) -> tuple[ModelSpec, Content]:
    """Load a user's ONNX file and its card, in the form that workers use: `read_files`, then `travelling`."""
    return travelling(path, *read_files(path, card_path))


def read_files(path: Path, card_path: Path | None = None) -> tuple[ModelCard, Content]:
    """Return a user's ONNX file and its card unchanged, the card with a name and the hash of the file.

    The card is a TOML file, by default the one beside the model; without a card only the file's name is known. Further
    files that the card lists lie beside the model, under their hashes. Raises ModelError if a file is missing or cannot
    be read, is no card, or the card belongs to another model.
    """
    body = read_file(path)
    if card_path is None and (beside := path.with_suffix(".toml")).exists():
        card_path = beside
    fields = {} if card_path is None else read_card(card_path)
    try:
        card = ModelCard.model_validate({"name": path.stem, **fields})
    except ValidationError as error:
        source = f"model {path}" if card_path is None else f"model card {card_path}"
        raise ModelError(f"{source}, {format_field_error(error.errors()[0])}", "see docs/models.md") from error
    if card.sha256 not in ("", hashlib.sha256(body).hexdigest()):
        raise ModelError(f"model {path} is not the file its model card {card_path} was made for", "correct its sha256")
    for file in card.files:
        check_size(path.parent / file.sha256, file.size, f"model {path}: its file {file.name}")
    content = ModelFiles(body, card.files, path.parent) if card.files else body
    return card.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()}), content


def travelling(path: Path, card: ModelCard, content: Content) -> tuple[ModelSpec, Content]:
    """Return the form in which a model is sent to workers: the card's arithmetic of its inputs is in front of its
    graph.

    Fields that the card omits follow from the graph. `path` is for errors. A process of its own loads the model and
    runs it. Raises ModelError if that fails, or card and graph disagree.
    """
    if (folder := described(card, content)) is not None:
        return folder, content
    spec, changed = in_own_process(str(path), "loads", HINT, read_model, content, str(path), card)
    return spec, content if changed is None else with_graph(content, changed)

"""Stores the user's models in `models_folder`, and finds the model of a file or folder.

A model is stored as its owner has it: `NAME.onnx`, its card `NAME.toml`, which has the hash of that file, and further
files under their hashes, which the card lists. Every load puts the card's arithmetic in front of the graph again.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engines.content import Content, graph_of
from engines.models.card_file import read_card
from engines.models.card_text import card_toml
from engines.models.catalogue import builtin_models, main_file, main_files, models_folder, save_model
from engines.models.files import NewFiles, remove_unused
from engines.models.folder_kinds import folder_of, kind_of_folder, kinds, take_folder
from engines.models.folders import FIRST_GRAPHS, Taken, take
from engines.models.ge2e import encoder_of
from engines.models.given import check_given
from engines.models.lora import check_alone
from engines.models.voices import VOCODERS
from engines.models.zipvoice import check_voiceless
from schemas.errors import ModelError, ModelMissing, UsageError
from schemas.model import ModelCard
from schemas.model_files import FileSpec
from schemas.text import did_you_mean

# general file names, which do not identify a model
_QUANTISED = ("model_optimized", "model_fp16", "model_quantized", "model_quant", "model.int8")
_GENERAL = ("model", *_QUANTISED, "encoder_model", "encoder", "vision_model", "1")
_STEPS = re.compile(r"model-steps-\d+")  # of Matcha
_NO_NAMES = ("onnx", "visual")  # of folders between a model's own folder and its file


@dataclass(frozen=True, slots=True)
class Found:
    """A model that was found: its file, its name there, and what was taken."""

    path: Path
    name: str
    taken: Taken

    @property
    def content(self) -> Content:
        """Its ONNX file, with its further files."""
        return self.taken.content


def new_files() -> NewFiles:
    """Take files into the store that stay if a card there lists them at the end of the `with` block."""
    return NewFiles(models_folder(), _used)


def find(given: Path, new: NewFiles) -> Found:
    """Find the model of a file or folder; one of ncnn or torch is converted to ONNX. Raises ModelError, StoreError.

    Files beside the ONNX file are copied by `new`.
    """
    from engines.models import torch_weights
    from engines.models.stable_files import exported

    if not given.exists():
        raise ModelError(f"{given}: no such file", "check the path")
    if not given.is_dir():
        check_given(given)
    if (made := exported(given, new)) is not None and (kind := kind_of_folder(made)) is not None:
        name = given.resolve().name if given.is_dir() else given.stem
        return Found(made / kind.main, name, take_folder(made, kind, new))
    if (kind := kind_of_folder(folder := folder_of(given))) is not None:
        return Found(folder / kind.main, folder.resolve().name, take_folder(folder, kind, new, given))
    check_voiceless(given)
    path = _in_folder(given) if given.is_dir() else given
    name = path.stem
    if name in _GENERAL or _STEPS.fullmatch(
        name
    ):  # use the folder's name; a version, `onnx` or `visual` may be between
        folders = [each.name for each in path.resolve().parents if not (each.name in _NO_NAMES or each.name.isdigit())]
        name = folders[0] if folders else name
    match path.suffix.lower():
        case ".onnx":
            return Found(path, name, take(path, given if given.is_dir() else None, new))
        case ".param" | ".bin":
            from engines.models.ncnn import convert

            return Found(path, name, Taken(convert(path.with_suffix(".param"), path.with_suffix(".bin"))))
        case suffix if suffix in torch_weights.SUFFIXES:
            check_alone(path)
            return Found(path, name, Taken(encoder_of(path) or torch_weights.convert(path)))
    raise ModelError(f"{path} is no model that rigflow reads", _readable())


def _in_folder(folder: Path) -> Path:
    """Return the one model of a folder: at its top, in `onnx/` or `visual/`, or in the latest version of Triton's."""
    versions = sorted((each for each in folder.iterdir() if each.name.isdigit()), key=lambda each: int(each.name))
    for place in (folder, folder / "onnx", folder / "visual", *versions[::-1]):
        for pattern in (*FIRST_GRAPHS, "*.onnx", "*.param"):
            found = sorted(each for each in place.glob(pattern) if each.is_file())
            found = [each for each in found if not any(map(each.match, VOCODERS))] or found
            if len(found) > 1:
                names = ", ".join(each.name for each in found[:4])
                raise ModelError(f"{place} has several models: {names}", "give the file of the one that you mean")
            if found:
                check_given(found[0])
                return found[0]
    raise ModelError(f"{folder} has no model", _readable())


def _readable() -> str:
    """What `find` takes."""
    from engines.models.torch_weights import SUFFIXES

    folders = " or ".join(sorted({kind.main for kind in kinds()}))
    files = f"an .onnx file of a network or a voice, ncnn's .param, or torch's {', '.join(SUFFIXES)}"
    return f"give {files}; or a folder with one, or with {folders}"


def card_fields(path: Path, names: list[str]) -> Mapping[str, Any]:
    """Return a card file as fields of a proposal; `names` are the graph's inputs in order. Raises ModelError."""
    fields: dict[str, Any] = {}
    known = ", ".join(f"`{name}`" for name in names)
    for key, value in read_card(path).items():
        if key != "inputs" or not isinstance(value, list):
            fields[key] = value
            continue
        for number, each in enumerate(value):
            name = each.get("name") if isinstance(each, dict) else None
            if name is None:
                raise ModelError(f"model card {path}: inputs.{number} has no name", f"the model has {known}")
            if name not in names:
                raise ModelError(f"model card {path}: the model has no input `{name}`, only {known}", "correct it")
            fields |= {f"inputs.{names.index(name)}.{field}": given for field, given in each.items()}
    return fields


def check_name(name: str) -> None:
    """Raise UsageError for the name of a model of rigflow: pipelines would still use that one."""
    if name in builtin_models():
        raise UsageError(f"rigflow has a model {name} of its own", "give yours another name, by --name or in its card")


def is_kept(card: ModelCard, content: Content) -> bool | None:
    """Return whether the stored model of this name equals this one; None if there is none. Raises OSError."""
    path = main_file(models_folder(), card.name)
    if path is None:
        return None
    written = path.with_suffix(".toml")
    text = written.read_bytes() if written.exists() else b""
    return text == card_toml(card).encode() and path.read_bytes() == graph_of(content)


def keep(card: ModelCard, content: Content) -> None:
    """Store a model in place of one of its name, whose file may be of the other kind; an equal one stays as it is.

    Raises OutputError, OSError.
    """
    before = main_file(models_folder(), card.name)
    if not is_kept(card, content):
        path = save_model(models_folder(), card, content)
        if before not in (None, path):
            before.unlink()


def kept() -> Iterator[tuple[str, Path, ModelCard | None]]:
    """Yield name, file and card of each stored model, sorted; None for a card that cannot be read."""
    for path in main_files(models_folder()):
        yield path.stem, path, _card(path.with_suffix(".toml"))


def _card(path: Path) -> ModelCard | None:
    try:
        return ModelCard.model_validate(read_card(path)) if path.exists() else ModelCard()
    except (ModelError, ValidationError):
        return None


def kept_path(name: str) -> Path:
    """Return the file of a stored model. Raises ModelMissing."""
    path = main_file(models_folder(), name)
    if name in builtin_models() and (path is None or not path.is_file()):
        raise ModelMissing(f"{name} is no model of yours: rigflow brings it", "`rigflow model list` lists the models")
    if path is None or not path.is_file():
        kept_names = [path.stem for path in main_files(models_folder())]
        hint = did_you_mean(name, kept_names, "`rigflow model list` lists the models")
        raise ModelMissing(f"there is no model {name}", hint)
    return path


def card_text(name: str) -> str:
    """Return the text of a stored model's card. Raises ModelMissing, ModelError."""
    path = kept_path(name).with_suffix(".toml")
    try:
        return path.read_text("utf-8") if path.exists() else card_toml(ModelCard(name=name))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read model card {path}: {error}", "write it again, see docs/models.md") from error


def remove(name: str) -> None:
    """Delete a stored model: its file, its card, and files that no other model has. Raises ModelMissing, OSError."""
    path = kept_path(name)
    path.with_suffix(".toml").unlink(missing_ok=True)
    path.unlink()
    remove_unused(path.parent, _used)


def _used() -> list[FileSpec] | None:
    """The further files of all stored models; None if a card cannot be read."""
    cards = [_card(path) for path in models_folder().glob("*.toml")]
    return None if None in cards else [file for card in cards if card for file in card.files]

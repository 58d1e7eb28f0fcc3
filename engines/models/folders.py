"""Takes a model with weights in files of their own, and what lies in its folder, as one model of several files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.content import Content, ModelFiles
from engines.inference.weights import (
    MOST_BYTES,
    ONE_FILE,
    check_span,
    external_tensors,
    location_of,
    parsed_graph,
    take_in,
)
from engines.models.files import NewFiles
from engines.models.given import check_no_pointer
from engines.models.towers import IMAGE, TEXT, Towers, cut
from schemas.errors import ModelError
from schemas.model_files import FileSpec
from schemas.text import size

_SMALL_BYTES = 1024  # shapes and the like, which ONNX Runtime needs before it opens files; ONNX's tools use it too
_MOST_FILES = 1000
# files that pipelines or backends of a kind need at run time, and why they are taken; a name or a pattern
COMPANIONS: Mapping[str, str] = {
    "tokenizer.json": "a tokenizer",
    "tokenizer.model": "a tokenizer",
    "tokenizer_config.json": "a tokenizer's settings",
    "special_tokens_map.json": "a tokenizer's settings",
    "added_tokens.json": "a tokenizer's settings",
    "vocab*.json": "a vocabulary",
    "vocab*.txt": "a vocabulary",
    "vocabulary.*": "a vocabulary",
    "tokens.txt": "a vocabulary",
    "merges.txt": "a vocabulary",
    "*.spm": "a vocabulary",
    "*.bpe.model": "a vocabulary",
    "spiece.model": "a vocabulary",
    "config.json": "settings of the network",
    "generation_config.json": "settings of the network",
    "preprocessor_config.json": "how inputs are made",
    "processor_config.json": "how inputs are made",
}
# of several graphs: one that takes the input first, and those that go with it
FIRST_GRAPHS = ("model.onnx", "vision_model.onnx", "encoder_model.onnx", "encoder.onnx")
PICTURES = ("vision_model.onnx", "visual/model.onnx")  # graphs of pictures that have one of texts
TEXTS = ("text_model.onnx", "textual/model.onnx")  # the latter two are the folders of Immich
TEXT_GRAPH = "text_model.onnx"
GRAPHS = (
    "encoder_model.onnx",
    "encoder.onnx",
    "decoder_model.onnx",
    "decoder_model_merged.onnx",
    "decoder_with_past_model.onnx",
    "decoder.onnx",
    "joiner.onnx",
    "embed_tokens.onnx",
    "vision_encoder.onnx",
    "text_encoder.onnx",
)
_GRAPH = "a further graph"
_TEXT = "the graph of texts"


@dataclass(slots=True)
class Taken:
    """A model of several files: its content, why each further file was taken, and the files that were left out."""

    content: Content
    why: dict[FileSpec, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """The further files."""
        return tuple(self.why)


def take(path: Path, folder: Path | None, new: NewFiles) -> Taken:
    """Take the ONNX file at `path` with its weights and, where `folder` was given as the model, its companions.

    Only regular files in the folder of an ONNX file, or below it, are read. Raises ModelError, StoreError.
    """
    taking = Taking(new)
    graph = taking.graph(path)
    if (towers := _towers(graph, path)) is not None:
        graph = towers.image
        if folder is not None:  # a file alone has no tokenizer
            taking.add(new.put(towers.text, TEXT_GRAPH), f"{_TEXT}, cut from {path.name}")
    elif (changed := _of_sound(graph, path)) is not None:
        graph, read = changed
        taking.sources.update(each.resolve() for each in read)
    for other, why in _companions(path, folder):
        if other.resolve() in taking.sources:
            continue
        if why in (_GRAPH, _TEXT):
            body = taking.graph(other)
            taking.add(new.put(body, taking.free_name(TEXT_GRAPH if why == _TEXT else other.name)), why)
        else:
            taking.add(new.take(other, taking.free_name(other.name)), why)
    files = tuple(taking.why)
    left = [] if folder is None else _left_out(path, folder, taking.sources)
    return Taken(ModelFiles(graph, files, new.folder) if files else graph, taking.why, left)


def _towers(graph: bytes, path: Path) -> Towers | None:
    """The two graphs of a model of pictures and texts."""
    if IMAGE.encode() not in graph or TEXT.encode() not in graph:  # so others need not be parsed
        return None
    return cut(parsed_graph(graph, str(path)), path.name)


def _of_sound(graph: bytes, path: Path) -> tuple[bytes, list[Path]] | None:
    """A model that speaks or that writes what is said, in its form that travels, and the files that it was made of."""
    from engines.models.listening import listening
    from engines.models.speech import speaking

    made = None
    if any(name in graph for name in (b"input_lengths", b"style", b"noise_scale")):  # so others need not be parsed
        made = speaking(graph, path)
    return made or listening(graph, path)


def text_graph(path: Path) -> Path | None:
    """The graph of texts that belongs to the graph of pictures at `path`, beside it or as Immich has it."""
    for pictures, texts in zip(PICTURES, TEXTS, strict=True):
        if path.match(pictures):
            found = path.resolve().parents[pictures.count("/")] / texts
            return found if found.is_file() else None
    return None


class Taking:
    """The files of one model, while they are gathered: `why` each was taken, and the `sources` that were read."""

    def __init__(self, new: NewFiles) -> None:
        self._new = new
        self.why: dict[FileSpec, str] = {}
        self.sources: set[Path] = set()
        self._weights: dict[Path, FileSpec] = {}

    def add(self, file: FileSpec, why: str) -> None:
        """Note a file that the store has. Raises ModelError."""
        if len(self.why) >= _MOST_FILES:
            raise ModelError(f"the model has more than {_MOST_FILES} files", "save its weights as one file")
        self.why[file] = why

    def free_name(self, name: str) -> str:
        """A name for a file that no other one of this model has."""
        name = re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9._+@ -]", "_", name)[-200:]
        taken, free, number = {file.name for file in self.why}, name, 1
        while free in taken:
            number += 1
            free = f"{number}_{name}"[:200]
        return free

    def graph(self, path: Path) -> bytes:
        """An ONNX file whose weights in other files are found by the hashes of these; the files are taken."""
        self.sources.add(path.resolve())
        body = read_graph(path)
        parsed = parsed_graph(body, str(path)) if b"location" in body else None
        tensors = [] if parsed is None else list(external_tensors(parsed))
        if parsed is None or not tensors:
            return body
        beside = {location: _beside(path, location) for location in {location_of(tensor) for tensor in tensors}}
        for tensor in tensors:
            source = beside[location_of(tensor)]
            check_span(tensor, source.stat().st_size, f"model `{path}`: its file {source.name}")
        self.sources.update(beside.values())
        for tensor in parsed.graph.initializer:
            if tensor.external_data and _nbytes(tensor, beside) >= _SMALL_BYTES:
                location = location_of(tensor)
                _address(tensor, self._taken_weights(beside[location], location))
        own = {file.sha256 for file in self._weights.values()}
        inside = [tensor for tensor in tensors if location_of(tensor) not in own]
        if sum(_nbytes(tensor, beside) for tensor in inside) + len(body) > MOST_BYTES:
            raise ModelError(f"model `{path}` has over 2 GB in constants of nodes", "make them initializers")
        for tensor in inside:
            take_in(tensor, path.resolve().parent, f"model `{path}`")
        return bytes(parsed.SerializeToString(deterministic=True))

    def _taken_weights(self, source: Path, location: str) -> FileSpec:
        if source not in self._weights:
            file = self._weights[source] = self._new.take(source, self.free_name(location.replace("/", "_")))
            self.add(file, "weights")
        return self._weights[source]


def read_graph(path: Path) -> bytes:
    """Read an ONNX file. Raises ModelError."""
    try:
        if (nbytes := path.stat().st_size) > MOST_BYTES:
            hint = "an ONNX file may have 2 GB: save its weights in a file beside it"
            raise ModelError(f"{path} has {size(nbytes)}", hint)
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path") from error


def _address(tensor: Any, file: FileSpec) -> None:
    """Make a tensor refer to the file of its weights by hash."""
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = file.sha256
    kept = [(entry.key, entry.value) for entry in tensor.external_data if entry.key in ("location", "offset", "length")]
    del tensor.external_data[:]
    for key, value in kept:
        tensor.external_data.add(key=key, value=value)


def _nbytes(tensor: Any, beside: Mapping[str, Path]) -> int:
    """Bytes of an external tensor; without a length it is the whole file."""
    length = next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), None)
    return beside[location_of(tensor)].stat().st_size if length is None else length


def _beside(path: Path, location: str) -> Path:
    """The file of weights, if it is one in the model's folder or below. Raises ModelError."""
    folder = path.resolve().parent
    try:
        found = (folder / location).resolve(strict=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"model `{path}`: its weights are in {location[:200]}: {reason}"
        raise ModelError(what, "put that file beside it") from error
    inside = found.is_relative_to(folder) and found.is_file()
    if not inside or ".." in Path(location).parts or Path(location).is_absolute():
        what = f"model `{path}`: its weights are in {location[:200]}, which is not beside it"
        raise ModelError(what, f"nothing else is read: {ONE_FILE}")
    check_no_pointer(found)
    return found


def _places(path: Path, folder: Path) -> list[Path]:
    """Folders of companions: those of the graphs, and the given one where the graph lies deeper."""
    texts = text_graph(path)
    return list(dict.fromkeys((path.resolve().parent, *([texts.parent] if texts else []), folder.resolve())))


def _companions(path: Path, folder: Path | None) -> Iterator[tuple[Path, str]]:
    """`(file, why)` of the files beside a graph that are known by name."""
    if folder is None or path.suffix.lower() != ".onnx":
        return
    texts = text_graph(path)
    graphs = GRAPHS if path.name in FIRST_GRAPHS and texts is None else ()
    for place in _places(path, folder):
        for each in sorted(place.iterdir()):
            if each.is_file() and each.resolve() != path.resolve() and each.resolve().is_relative_to(folder.resolve()):
                if each == texts:
                    yield each, _TEXT
                elif each.name in graphs and place == path.resolve().parent:
                    yield each, _GRAPH
                elif why := next((why for known, why in COMPANIONS.items() if each.match(known)), ""):
                    yield each, why


def _left_out(path: Path, folder: Path, weights: set[Path]) -> list[str]:
    """Names of the files in a model's folders that are not part of it; hidden ones are not named."""
    taken = weights | {each.resolve() for each, _ in _companions(path, folder)} | {path.with_suffix(".toml").resolve()}
    return [
        each.name
        for place in _places(path, folder)
        for each in sorted(place.iterdir())
        if each.is_file() and not each.name.startswith(".") and each.resolve() not in taken
    ]

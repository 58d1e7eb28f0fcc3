"""Folders of Stable Diffusion as ONNX files: versions 1, 2 and XL, Turbo and LCM, as optimum and Olive write them.

A folder has `model_index.json`, and in folders of their own the networks, their settings, the tokenizers and the
schedule of noise. All become files of one model.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.content import Content, ModelFiles
from engines.diffusion.choice import own_sampler
from engines.diffusion.folder import (
    ENCODER,
    GRAPH,
    MAIN,
    NEEDED,
    NETWORKS,
    SETTINGS,
    TEXT,
    TEXT_2,
    TOKENIZER_FILES,
    TOKENIZERS,
    check_names,
    facts_of,
    parsed,
    stored_name,
)
from engines.diffusion.schedule import CONFIG, read_config
from engines.diffusion.tokens import LENGTH
from engines.inference.weights import parsed_graph
from engines.models.clip_layers import with_skipped_layers
from engines.models.companions.base import Line, Sure
from engines.models.files import NewFiles
from engines.models.folders import Taken, Taking
from engines.models.given import check_own
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec, TensorSpec

BACKEND = "diffusion"
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_EXPORT = "export it: `optimum-cli export onnx --model FOLDER NEW_FOLDER`"
_AGAIN = "download the whole folder again"


class DiffusionFolder:
    """Recognises a folder by `model_index.json`; its backend is `diffusion`."""

    main = MAIN
    files: Mapping[str, str] = {}

    def fits(self, folder: Path) -> bool:
        """Whether it is one: a folder with the main file is."""
        return True

    def take(self, folder: Path, given: Path, new: NewFiles) -> Taken:
        """Take the files of the networks that rigflow runs, of their tokenizers, and the schedule."""
        main = _read(folder / MAIN)
        _check_folder(folder, parsed(main, f"{folder}: {MAIN}"))
        taking = Taking(new)
        networks = [each for each in NETWORKS if (folder / each / GRAPH).is_file()]
        for network in networks:
            body, why = _without_random_numbers(taking.graph(folder / network / GRAPH), network, folder)
            if network == TEXT and TEXT_2 not in networks:
                skipping = with_skipped_layers(body, f"{folder}/{network}/{GRAPH}")
                body, why = skipping or body, why if skipping is None else f"{why}, with outputs for clip_skip"
            taking.add(new.put(body, stored_name(f"{network}/{GRAPH}")), why)
        for path, why in _others(folder):
            check_own(folder / path, folder)
            taking.sources.add((folder / path).resolve())
            taking.add(new.take(folder / path, stored_name(path)), why)
        left = [
            str(each.relative_to(folder))
            for each in sorted(folder.rglob("*"))
            if each.is_file() and each.name != MAIN and each.resolve() not in taking.sources
        ]
        shown = [each for each in left if "/." not in f"/{each}"]
        return Taken(ModelFiles(main, tuple(taking.why), new.folder), taking.why, shown)

    def lines(self, folder: Path) -> Sequence[Line]:
        """Backend and description of a model."""
        index = parsed(_read(folder / MAIN), f"{folder}: {MAIN}")
        _check_folder(folder, index)
        schedule = read_config(_read(folder / "scheduler" / CONFIG), str(folder))
        kind = "Stable Diffusion XL" if (folder / TEXT_2 / GRAPH).is_file() else "Stable Diffusion"
        sampler = own_sampler(schedule) or f"{schedule.class_name[:60]}, which is not here: name another"
        begins = "" if (folder / ENCODER / GRAPH).is_file() else ", of words alone"
        stated = f"{MAIN} and the folders beside it"
        return [
            Line("description", f"{kind}: pictures of words{begins}; scheduler {sampler}", Sure.certain, stated),
            Line("backend", BACKEND, Sure.certain, stated),
        ]

    def drawn(self, spec: ModelSpec, content: Content) -> tuple[str, Array]:
        """Draw a picture in few steps. Raises ModelError, PluginMissing."""
        from engines.diffusion.trial import drawn

        return drawn(spec, content)

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """`tokens [N, 77]`, and `picture` where it can begin with one, become `image [N, H, W, 3]`."""
        if card.inputs or card.outputs or card.heads:
            what = f"model `{card.name}`: the card of a Stable Diffusion has no inputs, outputs and heads"
            raise ModelError(what, "omit them")
        facts_of(content, card.name)
        pictures = [TensorSpec(name="picture", dtype="uint8", shape=("N", "H", "W", 3))]
        has_encoder = any(file.name == stored_name(f"{ENCODER}/{GRAPH}") for file in content.files)
        return ModelSpec(
            name=card.name,
            version=card.version,
            description=card.description,
            backend=card.backend,
            inputs=(TensorSpec(name="tokens", dtype="int64", shape=("N", LENGTH)), *(pictures if has_encoder else [])),
            outputs=(TensorSpec(name="image", dtype="uint8", shape=("N", "H", "W", 3)),),
            sha256=card.sha256,
            files=content.files,
        )


def _check_folder(folder: Path, index: Mapping[str, Any]) -> None:
    """Raise ModelError unless a folder has the networks of a Stable Diffusion as ONNX files, and all else."""
    kind = str(index.get("_class_name", ""))[:80]
    there = [each for each in NETWORKS if (folder / each / GRAPH).is_file()]
    if missing := [each for each in NEEDED if each not in there]:
        if not ((folder / "text_encoder").is_dir() and (folder / "unet").is_dir()):
            what = f"{folder} is a {kind or 'pipeline'}, which rigflow does not run"
            raise ModelError(what, "it runs Stable Diffusion 1, 2 and XL, Turbo and LCM, as ONNX files")
        raise ModelError(f"{folder} has no {missing[0]}/{GRAPH}", f"its networks are no ONNX files: {_EXPORT}")
    paths = [path for path, _ in _others(folder)] + [f"{each}/{GRAPH}" for each in there]
    check_names({stored_name(path) for path in paths}, str(folder))


def _others(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the files beside the graphs that are taken: their paths in the folder, and why."""
    known = [(f"{each}/{name}", "a tokenizer") for each in TOKENIZERS for name in TOKENIZER_FILES]
    known += [(f"{each}/{SETTINGS}", "settings of the network") for each in NETWORKS]
    known.append((f"scheduler/{CONFIG}", "the schedule of noise"))
    yield from ((path, why) for path, why in known if (folder / path).is_file())


def _without_random_numbers(body: bytes, network: str, folder: Path) -> tuple[bytes, str]:
    """Return a graph and why it is taken. An encoder that draws noise by itself gets none: its answer is the mean.

    Raises ModelError for other graphs that draw random numbers: no two workers would answer alike.
    """
    if not any(name.encode() in body for name in _RANDOM):
        return body, f"the graph of {network}"
    model = parsed_graph(body, f"{folder}/{network}/{GRAPH}")
    drawing = [node for node in model.graph.node if node.op_type in _RANDOM]
    if any(node.op_type != "RandomNormalLike" or network != ENCODER for node in drawing):
        what = f"{folder}/{network}/{GRAPH} draws random numbers by itself ({drawing[0].op_type})"
        raise ModelError(what, "export it without them")
    for node in drawing:
        node.op_type, of = "Sub", node.input[0]
        del node.attribute[:], node.input[:]
        node.input.extend([of, of])
    return bytes(model.SerializeToString(deterministic=True)), f"the graph of {network}, without its random numbers"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", _AGAIN) from error

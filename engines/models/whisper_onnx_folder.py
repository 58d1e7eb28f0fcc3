"""Folders of Whisper as ONNX files, as optimum exports them and Transformers.js has them.

A folder has `config.json`, `tokenizer.json`, and beside them or in `onnx/` an encoder and a decoder: one graph,
`decoder_model_merged.onnx`, or two, `decoder_model.onnx` for the first tokens and `decoder_with_past_model.onnx` for
the others. Names may have a suffix of a precision, as in `encoder_model_fp16.onnx`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.content import ModelFiles
from engines.inference.whisper_decoder import ENCODER, FIRST, MERGED, NEXT
from engines.inference.whisper_onnx import SETTINGS_FILE
from engines.models.companions.base import Line, Sure, json_of
from engines.models.files import NewFiles
from engines.models.folders import Taken, Taking
from engines.models.given import check_own
from engines.models.whisper_attention import with_attention
from engines.speech.network import MAIN_FILE, MULTILINGUAL, TOKENIZER_FILE, arrays_of, file_named
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec

BACKEND = "onnxruntime-whisper"
_HINT = "download the whole folder again"
_EXPORT = "optimum exports them for the task automatic-speech-recognition-with-past"
_FILE = re.compile(rf"{ENCODER}(|_\w+)\.onnx")
_MOST_LAYERS, _MOST_SIZE = 1000, 1 << 24


class WhisperOnnxFolder:
    """Recognises a folder by its encoder, and `config.json` of a Whisper."""

    main = MAIN_FILE
    files: Mapping[str, str] = {
        TOKENIZER_FILE: "a tokenizer",
        SETTINGS_FILE: "settings of the network",
        "preprocessor_config.json": "how inputs are made",
    }

    def fits(self, folder: Path) -> bool:
        """Whether the folder has an encoder, and its settings are those of a Whisper."""
        if not any(_FILE.fullmatch(path.name) for place in _places(folder) for path in place.glob("*.onnx")):
            return False
        try:
            return json_of(folder / self.main).get("model_type") == "whisper"
        except ModelError:
            return False  # the graphs may be those of another network

    def folder_of(self, given: Path) -> Path | None:
        """The folder of an encoder that is given alone."""
        if not given.is_file() or not _FILE.fullmatch(given.name):
            return None
        above = given.resolve().parents[:2]
        return next((each for each in above if (each / self.main).is_file() and given in list(_encoders(each))), None)

    def lines(self, folder: Path) -> Sequence[Line]:
        """Backend and description of a network."""
        config = _checked(json_of(folder / self.main), str(folder))
        if not (folder / TOKENIZER_FILE).is_file():
            raise ModelError(f"{folder} has no {TOKENIZER_FILE}", _HINT)
        languages = "many languages" if config["vocab_size"] >= MULTILINGUAL else "English"
        about = f"{config['encoder_layers']} blocks of {config['d_model']}, {config['num_mel_bins']} bands of sound"
        stated = f"{self.main} is that of a Whisper, with an encoder and a decoder in ONNX"
        return [
            Line("description", f"Whisper for {languages}: {about}", Sure.certain, stated),
            Line("backend", BACKEND, Sure.certain, stated),
        ]

    def take(self, folder: Path, given: Path, new: NewFiles) -> Taken:
        """Take the graphs, with `given` the encoder of the precision that is wanted, or the folder for the usual one.

        The graph of the first tokens becomes one that gives the attention by which words are aligned.
        """
        config = _checked(json_of(folder / self.main), str(folder))
        encoder = _chosen(folder, given)
        taking = Taking(new)
        for role, path in _graphs(encoder).items():
            body, why = taking.graph(path), "a graph"
            if role in (MERGED, FIRST):
                shape = config["decoder_layers"], config["decoder_attention_heads"]
                aligned = with_attention(body, _heads(folder, shape, config), shape, str(path))
                body, why = aligned or body, _why(aligned)
            taking.add(new.put(body, f"{role}.onnx"), why)
        for name, why in self.files.items():
            if (folder / name).is_file():
                check_own(folder / name, folder)
                taking.add(new.take(folder / name, name), why)
        main = (folder / self.main).read_bytes()
        used = {*(each.resolve() for each in taking.sources), *(folder.resolve() / name for name in self.files)}
        left = [
            each.name
            for place in dict.fromkeys((encoder.parent, folder))
            for each in sorted(place.iterdir())
            if each.is_file() and each.resolve() not in used and each.name != self.main and each.name[0] != "."
        ]
        return Taken(ModelFiles(main, tuple(taking.why), new.folder), taking.why, left)

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """`features [N, bands, 3000]` become `states [N, 1500, width]`, and texts have `logits` of so many tokens."""
        if card.inputs or card.outputs or card.heads or card.precision:
            what = f"model `{card.name}`: the card of a Whisper in ONNX has no inputs, outputs, heads and precision"
            raise ModelError(what, "omit them; its files have a precision")
        names = {file.name for file in content.files}
        wanted = [ENCODER, *([MERGED] if f"{MERGED}.onnx" in names else [FIRST, NEXT])]
        for name in (TOKENIZER_FILE, *(f"{each}.onnx" for each in wanted)):
            file_named(content.files, name, card.name)
        config = _checked(_parsed(content.graph, card.name), card.name)
        inputs, outputs = arrays_of(config["num_mel_bins"], config["d_model"], config["vocab_size"])
        return ModelSpec(
            name=card.name,
            version=card.version,
            description=card.description,
            backend=card.backend,
            inputs=inputs,
            outputs=outputs,
            sha256=card.sha256,
            files=content.files,
        )


def _places(folder: Path) -> tuple[Path, Path]:
    return folder, folder / "onnx"


def _encoders(folder: Path) -> Iterator[Path]:
    """The encoders of a folder that have a decoder of the same precision, the usual one first."""
    for place in _places(folder):
        found = sorted(place.glob(f"{ENCODER}*.onnx"), key=lambda path: (len(path.name), path.name))
        yield from (path for path in found if path.is_file() and _FILE.fullmatch(path.name) and _graphs(path))


def _graphs(encoder: Path) -> dict[str, Path]:
    """The graphs of a model, by their role; none where the encoder has no decoder of its precision."""
    suffix = encoder.stem.removeprefix(ENCODER)
    for roles in ((MERGED,), (FIRST, NEXT)):
        found = {role: encoder.with_name(f"{role}{suffix}.onnx") for role in roles}
        if all(path.is_file() for path in found.values()):
            return {ENCODER: encoder, **found}
    return {}


def _chosen(folder: Path, given: Path) -> Path:
    """The encoder that is given, that without a suffix, or the only one. Raises ModelError."""
    found = list(_encoders(folder))
    if given.is_file():
        return given
    if len(found) > 1 and found[0].stem != ENCODER:
        names = ", ".join(each.name for each in found)
        raise ModelError(f"{folder} has several precisions: {names}", "give the file of the one that you mean")
    if not found:
        what = f"{folder} has an encoder, and no decoder beside it that keeps keys and values from token to token"
        raise ModelError(what, _EXPORT)
    return found[0]


def _checked(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Settings with all sizes of a Whisper. Raises ModelError."""
    if config.get("model_type") != "whisper":
        raise ModelError(f"{name}: {MAIN_FILE} is that of no Whisper", _HINT)
    sizes = {"decoder_layers": _MOST_LAYERS, "decoder_attention_heads": _MOST_LAYERS, "encoder_layers": _MOST_LAYERS}
    for key, most in (sizes | dict.fromkeys(("d_model", "num_mel_bins", "vocab_size"), _MOST_SIZE)).items():
        size = config.get(key)
        if type(size) is not int or not 0 < size <= most:
            raise ModelError(f"{name}: {MAIN_FILE} has no number {key}", _HINT)
    return config


def _heads(folder: Path, shape: tuple[int, int], config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The heads that align words: those that the settings name, or all of the later half, as openai/whisper has it."""
    layers, count = shape
    path = folder / SETTINGS_FILE
    given = (json_of(path) if path.is_file() else {}).get("alignment_heads") or config.get("alignment_heads")
    if not given:
        return [(layer, head) for layer in range(layers // 2, layers) for head in range(count)]
    for each in given if isinstance(given, list) else [given]:
        whole = isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)
        if not whole or not 0 <= each[0] < layers or not 0 <= each[1] < count:
            what = f"{path}: alignment_heads has {str(each)[:60]}, which the network lacks"
            raise ModelError(what, _HINT)
    return [(layer, head) for layer, head in given]


def _why(aligned: bytes | None) -> str:
    if aligned is None:
        return "a graph; its attention is fused, so there are no times of words, only those of chunks"
    return "a graph, which now gives the attention for times of words"


def _parsed(body: bytes, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model {name}: its {MAIN_FILE} is no JSON", _HINT) from error
    return found if isinstance(found, dict) else {}

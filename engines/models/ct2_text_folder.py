"""Folders of CTranslate2 with language models: Llama, Qwen, Gemma, Mistral, GPT-2 and others of decoders alone.

A folder has `config.json`, `model.bin`, `tokenizer.json`, `vocabulary.json` or `.txt`, and for chat
`chat_template.jinja` or a template in `tokenizer_config.json`, which are copied beside a converted model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.content import ModelFiles
from engines.generation.chat_template import SETTINGS_FILE, TEMPLATE_FILE, check_template
from engines.inference.ct2_files import DECODER, MODEL_FILE, BinaryModel, blocks, kind_of, read_binary, token_bytes
from engines.models.companions.base import Line, Sure, json_of
from engines.models.language_models import language_spec
from engines.speech.network import MAIN_FILE, PRECISION, PRECISIONS, TOKENIZER_FILE, file_named
from schemas.errors import ModelError
from schemas.model import ModelCard, ModelSpec

BACKEND = "ctranslate2-text"
MOST_CONTEXT, _UNSTATED_CONTEXT = 8192, 2048  # that are proposed; a model may be added with another
_PLACES = "decoder/position_encodings/encodings"
_HINT = (
    "download the whole folder again, or convert it again: `ct2-transformers-converter --model FOLDER --copy_files "
    "tokenizer.json tokenizer_config.json`, see docs/chat.md"
)


class CTranslate2TextFolder:
    """Recognises a folder by the kind of network in `model.bin`; its backend is ctranslate2-text."""

    main = MAIN_FILE
    files: Mapping[str, str] = {
        MODEL_FILE: "weights",
        TOKENIZER_FILE: "a tokenizer",
        "vocabulary.*": "a vocabulary",
        SETTINGS_FILE: "a tokenizer's settings",
        TEMPLATE_FILE: "the chat template",
        "generation_config.json": "the tokens that end an answer",
    }

    def fits(self, folder: Path) -> bool:
        """Whether the folder has the weights of a decoder in CTranslate2's format."""
        return kind_of(folder / MODEL_FILE) == DECODER

    def lines(self, folder: Path) -> Sequence[Line]:
        """Backend, precision, description and context of a model."""
        binary = read_binary(folder / MODEL_FILE)
        token_bytes(binary, str(folder))
        check_template(folder)
        for name in (TOKENIZER_FILE, "vocabulary.*"):
            if not any(folder.glob(name)):
                raise ModelError(f"{folder} has no {name}", _HINT)
        stated = f"{MODEL_FILE} has the weights of a language model in CTranslate2's format"
        anywhere = "every processor and GPU computes it; float16 is faster on GPUs since Volta"
        context, why = _context(folder, binary)
        return [
            Line("description", f"a language model of {blocks(binary)} blocks", Sure.certain, stated),
            Line("backend", BACKEND, Sure.certain, stated),
            Line("precision", PRECISION, Sure.certain, anywhere),
            Line("inputs.0.name", "tokens", Sure.certain, stated),
            Line("inputs.0.dtype", "int32", Sure.certain, stated),
            Line("inputs.0.shape", ["N", context], Sure.certain, why),
        ]

    def spec(self, card: ModelCard, content: ModelFiles) -> ModelSpec:
        """`tokens [N, context]`: a text and its answer have at most so many together."""
        if card.precision not in PRECISIONS:
            given = card.precision or "nothing"
            raise ModelError(f"model `{card.name}`: precision is {given}", f"there are {', '.join(PRECISIONS)}")
        binary = read_binary(content.folder / file_named(content.files, MODEL_FILE, card.name).sha256)
        token_bytes(binary, card.name)
        file_named(content.files, TOKENIZER_FILE, card.name)
        most = (*binary.shapes.get(_PLACES, ()), 1 << 24)[0]
        return language_spec(card, content, most, card.precision)


def _context(folder: Path, binary: BinaryModel) -> tuple[int, str]:
    """Return the context to propose, and why."""
    if places := binary.shapes.get(_PLACES):
        return min(places[0], MOST_CONTEXT), f"of the {places[0]} places that {MODEL_FILE} has"
    settings = folder / SETTINGS_FILE
    length = json_of(settings).get("model_max_length") if settings.is_file() else None
    if isinstance(length, int) and 2 <= length < 1 << 24:
        return min(length, MOST_CONTEXT), f"of the {length} tokens that {SETTINGS_FILE} states"
    return _UNSTATED_CONTEXT, "no file states how many tokens it can hold"

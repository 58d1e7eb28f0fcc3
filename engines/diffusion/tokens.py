"""Prompts as CLIP's tokens: by `tokenizer.json`, or by `vocab.json` and `merges.txt`, as other folders have it.

What CLIP does before its byte pairs: Unicode's form C, one blank between words, small letters; then words, single
digits and runs of other signs by a pattern (openai/CLIP, simple_tokenizer.py).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import ModelFiles
from engines.diffusion.folder import file_of, parsed
from engines.extras import imported
from engines.part import Array
from schemas.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LENGTH = 77  # tokens of a prompt, with the first and the last one
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MOST = 8000  # characters that are looked at: far more than 75 tokens have
_AGAIN = "download its tokenizer again and add the model"


class ClipTokens:
    """The tokenizer in a folder of a model, `tokenizer` or `tokenizer_2`. Raises ModelError, PluginMissing."""

    def __init__(self, model: ModelFiles, folder: str, name: str) -> None:
        self._name = f"model {name}: {folder}"
        whole = file_of(model, f"{folder}.tokenizer.json")
        library = imported("tokenizers", f"model {name}", "imagine")
        try:
            self._tokenizer: Tokenizer = (
                library.Tokenizer.from_str(whole.decode())
                if whole is not None
                else _assembled(*self._parts(model, folder))
            )
        except ModelError:
            raise
        except Exception as error:  # the library raises plain Exception
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self._name} cannot be read: {reason}", _AGAIN) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._start, self._end = self._id(_START), self._id(_END)
        self._pad = self._padding(model, folder)

    def ids(self, text: str) -> tuple[Array, bool]:
        """Return `[1, 77]` int64, and whether the text is longer: the rest is left out."""
        short = " ".join(text.split())
        found = self._tokenizer.encode(short[:_MOST], add_special_tokens=False).ids
        kept = found[: LENGTH - 2]
        ids = np.full((1, LENGTH), self._pad, np.int64)
        ids[0, : len(kept) + 2] = [self._start, *kept, self._end]
        return ids, len(found) > len(kept) or len(short) > _MOST

    def _parts(self, model: ModelFiles, folder: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
        vocabulary = parsed(file_of(model, f"{folder}.vocab.json"), f"{self._name}/vocab.json")
        text = (file_of(model, f"{folder}.merges.txt") or b"").decode()
        lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#version")]
        if any(len(line) != 2 for line in lines):
            raise ModelError(f"{self._name}/merges.txt has a line that is no pair", _AGAIN)
        return dict(vocabulary), [(line[0], line[1]) for line in lines]

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(f"{self._name} has no token {token}, so it is none of CLIP", _AGAIN)
        return int(found)

    def _padding(self, model: ModelFiles, folder: str) -> int:
        """The token that fills up: the last one in version 1, "!" in others, as the settings say."""
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            settings = parsed(file_of(model, f"{folder}.{name}"), f"{self._name}/{name}")
            token: Any = settings.get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return self._id(token)
        return self._end


def _assembled(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> "Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(
        models.BPE(
            vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=_END, fuse_unk=False
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens([AddedToken(each, normalized=False, special=True) for each in (_START, _END)])
    return made

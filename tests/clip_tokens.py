"""The tokenizer of CLIP as its official tokenizer.json has it, made of a list of merges."""

from collections.abc import Sequence

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def letters() -> list[str]:
    """The letter that stands for each byte, those that can be printed first: GPT-2's table, which CLIP has too."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + number) for number in range(len(rest))]


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Token -> id: bytes, bytes that end a word, merges, and the two special ones."""
    tokens = [*letters(), *(f"{each}</w>" for each in letters()), *("".join(each) for each in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def clip_tokenizer(merges: Sequence[tuple[str, str]]) -> str:
    """The text of tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = vocabulary(merges)
    made = Tokenizer(
        models.BPE(words, list(merges), continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(
        (END, words[END]), (START, words[START]), trim_offsets=False, add_prefix_space=False
    )
    made.add_special_tokens([START, END])
    return str(made.to_str())

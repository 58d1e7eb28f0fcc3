"""ONNX Runtime GenAI as a library: its import, its errors, and whether it answers together as it does alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.extras import imported
from engines.generation.answer_request import Tokens

LIBRARY_ERRORS = (RuntimeError, ValueError, MemoryError)
_TRIALS = ("a", "What is it?", "one two three four five six", "The quick brown fox jumps over the lazy dog.")
_TRIAL_TOKENS = 8


def library() -> Any:
    """Return the module of the library. Raises PluginMissing where it is not installed."""
    return imported("onnxruntime_genai", "a language model", "llm")


def in_a_line(error: Exception) -> str:
    """Return what the library says of an error."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def padded(questions: Sequence[Tokens], pad: int) -> Tokens:
    """Return questions `[N, T]` as generators take them: with the token `pad` behind the shorter ones."""
    rows = np.full((len(questions), max(map(len, questions))), pad, np.int32)
    for row, question in zip(rows, questions, strict=True):
        row[: len(question)] = question
    return rows


def batches_rightly(og: Any, model: Any, tokenizer: Any) -> bool:
    """Return whether a generator gives the same answers together as it gives alone.

    Those of GenAI 0.18 do not with every graph: they take a token that pads for padding wherever it is, and questions
    of chat templates have the token that ends answers, which often is the same one.
    """
    ends = frozenset(int(token) for token in tokenizer.eos_token_ids)
    texts = [np.asarray(tokenizer.encode(text), np.int32) for text in _TRIALS]
    prompts = [np.concatenate([text, np.array(sorted(ends), np.int32), text]) for text in texts]
    alone = [_answers(og, model, prompt[None], ends)[0] for prompt in prompts]
    try:
        return alone == _answers(og, model, padded(prompts, int(tokenizer.pad_token_id)), ends)
    except LIBRARY_ERRORS:  # it takes one question at a time
        return False


def _answers(og: Any, model: Any, rows: Tokens, ends: frozenset[int]) -> list[list[int]]:
    """Return the first tokens of answers to rows, to the token that ends each."""
    params, answers = og.GeneratorParams(model), []
    params.set_search_options(max_length=rows.shape[1] + _TRIAL_TOKENS, do_sample=False, batch_size=len(rows))
    generator = og.Generator(model, params)
    generator.append_tokens(rows)
    while not generator.is_done():
        generator.generate_next_token()
        answers.append(list(map(int, generator.get_next_tokens())))
    made = [list(answer) for answer in zip(*answers, strict=True)]
    return [answer[: next((n for n, token in enumerate(answer) if token in ends), None)] for answer in made]

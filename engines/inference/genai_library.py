"""ONNX Runtime GenAI as a library: its import, its errors, and whether its engine gives the answers of generators."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.extras import imported
from engines.generation.answer_request import Tokens

EVENTS = 64  # that an engine reports in one step
LIBRARY_ERRORS = (RuntimeError, ValueError, MemoryError)
_TRIALS = ("a", "What is it?", "one two three four five six", "The quick brown fox jumps over the lazy dog.")
_TRIAL_TOKENS = 8


def library() -> Any:
    """Return the module of the library. Raises PluginMissing where it is not installed."""
    return imported("onnxruntime_genai", "a language model", "llm")


def in_a_line(error: Exception) -> str:
    """Return what the library says of an error."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def batches_rightly(og: Any, model: Any, tokenizer: Any) -> bool:
    """Return whether an engine answers as generators do.

    That of GenAI 0.18 does not where positions are inputs of the graph, and a question has the token that ends answers,
    as those of chat templates have.
    """
    ends = frozenset(int(token) for token in tokenizer.eos_token_ids)
    texts = [np.asarray(tokenizer.encode(text), np.int32) for text in _TRIALS]
    prompts = [np.concatenate([text, np.array(sorted(ends), np.int32), text]) for text in texts]
    alone = [_alone(og, model, prompt, ends) for prompt in prompts]
    try:
        engine = og.Engine(model)
    except LIBRARY_ERRORS:  # it does not take models of this kind
        return False
    return alone == _together(og, engine, prompts, ends)


def _alone(og: Any, model: Any, prompt: Tokens, ends: frozenset[int]) -> list[int]:
    """Return the first tokens of an answer."""
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + _TRIAL_TOKENS, do_sample=False)
    generator, answer = og.Generator(model, params), []
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    return [token for token in answer if token not in ends]


def _together(og: Any, engine: Any, prompts: Sequence[Tokens], ends: frozenset[int]) -> list[list[int]]:
    """Return the first tokens of answers that are written together."""
    requests, events = [engine.create_request() for _ in prompts], engine.create_event_buffer(EVENTS)
    for request, prompt in zip(requests, prompts, strict=True):
        options = og.TurnOptions(request)
        options.set_max_generated_tokens(_TRIAL_TOKENS)
        options.set_do_sample(False)
        request.begin_turn(prompt, options)
    answers: dict[int, list[int]] = {id(request): [] for request in requests}
    while engine.has_pending_requests():
        for event in engine.run(events):
            if event.flags & og.EngineEventFlags.TOKEN and event.token not in ends:
                answers[id(event.request)].append(int(event.token))
    for request in requests:
        request.close()
    return list(answers.values())

"""Groups of answers that CTranslate2 writes: one call of its generator, which computes a step when it is told to.

The library computes in a thread of its own and reports each token by a callback; the callback of a step's last token
waits until the next step is wanted. So no thread computes beside the one that steps.
"""

import threading
from collections.abc import Sequence
from typing import Any

from engines.generation.answering import Asked
from engines.generation.token_writer import TokenWriter
from engines.inference.reasons import one_line
from schemas.errors import DeviceLost, ModelError, RigflowError

_LOOK_S = 0.2  # how often is looked whether the call has failed
_LOST = ("CUDA failed", "CUDA error", "CUBLAS_STATUS_EXECUTION", "CUBLAS_STATUS_INTERNAL")


class CallGroup:
    """Answers of the most probable tokens to questions of one length."""

    def __init__(self, generator: Any, asked: Sequence[Asked], words: Sequence[Sequence[str]], ends: list[int]) -> None:
        """`words`: the tokens of each question, as texts; `ends`: the tokens that end an answer."""
        self._generator = generator
        self._asked = list(asked)
        self._words = [list(each) for each in words]
        self._ends = ends
        self._writer = TokenWriter(frozenset(ends))
        self._turn = threading.Condition()
        self._running: list[Any] = []  # what the library promises, one for each answer
        self._live = set(range(len(self._asked)))
        self._due = set(self._live)  # answers that have no token of this step yet
        self._steps = self._wanted = 0
        self._closed = False

    def step(self) -> None:
        """Let the library write a token of each answer. Raises ModelError, DeviceLost."""
        with self._turn:
            self._wanted += 1
            self._turn.notify_all()
        try:
            if not self._running:
                self._begin()
            with self._turn:
                while self._steps < self._wanted and not self._ended():
                    self._turn.wait(_LOOK_S)
            if self._ended():
                for each in self._running:
                    each.result()
                for asked in self._asked:
                    asked.answer.end("length")
        except RigflowError:
            raise
        except Exception as error:  # the library raises RuntimeError and ValueError
            raise failure(error) from error

    def _begin(self) -> None:
        self._running = self._generator.generate_batch(
            self._words,
            max_length=max(each.request.max_tokens for each in self._asked) + 1,
            min_length=0,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=self._ends,
            return_end_token=True,
            max_batch_size=0,
            callback=self._token,
            asynchronous=True,
        )

    def _ended(self) -> bool:
        return all(each.done() for each in self._running)

    def _token(self, result: Any) -> bool:
        """Take a token, in the library's thread; whether its answer is done."""
        with self._turn:
            number, asked = result.batch_id, self._asked[result.batch_id]
            done = self._closed or number not in self._live or self._add(asked, result.token_id)
            if done or result.is_last:
                self._live.discard(number)
            self._due.discard(number)
            if not self._due:
                self._due = set(self._live)
                self._steps += 1
                self._turn.notify_all()
                while self._live and self._steps >= self._wanted and not self._closed:
                    self._turn.wait()
            return bool(done)

    def _add(self, asked: Asked, token: int) -> bool:
        answer = asked.answer
        if not answer.done:
            self._writer.add(asked, token)
        return answer.done

    def drop(self, asked: Asked) -> None:
        """Take no more tokens of an answer."""
        with self._turn:
            self._live.discard(self._asked.index(asked))

    def close(self) -> None:
        """Wait until the library has ended its step."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        for each in self._running:
            try:
                each.result()
            except Exception:  # its answers have the error
                return


def failure(error: Exception) -> RigflowError:
    """Return an error of the library as ours."""
    words = one_line(error)
    if any(each in words for each in _LOST):
        return DeviceLost(f"CTranslate2: {words}")
    return ModelError(f"CTranslate2 failed: {words}", "see the worker's log")

"""Requests to the broker that wait for their answers, distinguished by the last token of their reply subject."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from pipelines.answers import status_of

REQUEST_S = 5.0  # without an answer for so long, a request counts as lost
Answers = asyncio.Queue[Msg | Exception]
Take = Callable[[Msg | Exception], None]


class Away(Exception):
    """The broker went away before it answered: whether the request was carried out is unknown."""


class NoResponders(Exception):
    """No stream or subscriber takes this subject. While a broker recovers, that may change soon."""


class Inbox:
    """The requests of one connection: each `asking` has its own reply subject under `prefix`."""

    def __init__(self) -> None:
        self.prefix = ""
        self._numbers = itertools.count()
        self._asked: dict[str, tuple[str, Take]] = {}
        self._forbidden: Exception | None = None  # why no answer can come

    @contextmanager
    def asking(self, subject: str, take: Take) -> Iterator[str]:
        """A reply subject for a request to `subject`; each answer that comes to it is given to `take`."""
        token = str(next(self._numbers))
        self._asked[token] = (subject, take)
        if self._forbidden is not None:
            take(self._forbidden)
        try:
            yield f"{self.prefix}.{token}"
        finally:
            del self._asked[token]

    def on_answer(self, message: Msg) -> None:
        """Give an answer to its request; one that comes too late is dropped."""
        asked = self._asked.get(message.subject.rpartition(".")[2])
        if asked is not None:
            asked[1](message)

    def forbid(self, error: Exception | None) -> None:
        """End all requests with an error, later ones too, until None is given: the broker lets no answer through."""
        self._forbidden = error
        if error is not None:
            self.fail(error)

    def fail(self, error: Exception, named_in: str | None = None) -> None:
        """End all requests with an error, or only those whose subject stands in quotes in `named_in`."""
        for subject, take in self._asked.values():
            if named_in is None or f'"{subject.lower()}"' in named_in:
                take(error)


class OneAnswer:
    """The first answer to a request, or the error that ended it, within `REQUEST_S`: `take` once, `wait` for it."""

    def __init__(self) -> None:
        self._first: asyncio.Future[Msg | Exception] = asyncio.get_running_loop().create_future()

    def take(self, answer: Msg | Exception) -> None:
        """Take an answer; all but the first are dropped."""
        if not self._first.done():
            self._first.set_result(answer)

    async def wait(self) -> Msg:
        """The answer. Raises as `next_answer`."""
        late = asyncio.get_running_loop().call_later(REQUEST_S, self.take, _late())
        try:
            return _message(await self._first)
        finally:
            late.cancel()


async def next_answer(answers: Answers) -> Msg:
    """The next answer to a request. Raises Away, NoResponders, and the error that ended the request."""
    try:
        async with asyncio.timeout(REQUEST_S):
            return _message(await answers.get())
    except TimeoutError:
        raise _late() from None


def _late() -> Away:
    return Away(f"no answer within {REQUEST_S:.0f} s")


def _message(answer: Msg | Exception) -> Msg:
    if isinstance(answer, Exception):
        raise answer
    if status_of(answer) == "503":
        raise NoResponders
    return answer

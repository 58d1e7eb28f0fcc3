"""Which answers are written now: groups of them begin together, urgent ones pass the others.

A library writes a group of answers together, a token each in a step. A group takes in no further answers, because those
libraries that let answers join a batch do so when all of its answers have ended. Several groups run beside each other.

- An answer that a person waits for begins at the next step, in a group of such answers. Where no place is free, the
  answer of bulk with the fewest tokens is put back, at most once: it begins again later, and its text is the same.
- Groups take turns, a step each. While such answers run, the others pause, except in every `BULK_TURN`-th step.
- Other answers leave one place in nine free, at least one. Their groups begin with as many answers as there can be.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engines.generation.answer import Answer
from engines.generation.answer_request import AnswerRequest
from engines.part import Tick
from schemas.errors import RigflowError

BULK_TURN = 8  # every eighth step is one of bulk, and so many steps an incomplete group of bulk waits for others
_FEW = 4  # so many answers are one group however long their questions are: one by one they take twice the time
BULK_SHARE = 9  # of so many places, one is kept for answers that a person waits for


@dataclass(frozen=True, slots=True)
class Limits:
    """`context`: tokens of a text and its answer together. `slots`: answers at a time; their keys and values take
    `slot_bytes` each. `read`: tokens of questions of a group of more than a few answers,
    which are read in one step.
    """

    context: int
    slots: int
    slot_bytes: int
    read: int

    @property
    def bulk_slots(self) -> int:
        """Answers of bulk at a time."""
        return self.slots - max(1, self.slots // BULK_SHARE) if self.slots > 1 else 1


@dataclass(slots=True, eq=False)
class Asked:
    """An answer, and what it was asked for."""

    request: AnswerRequest
    answer: Answer
    put_back: bool = False


class Group(Protocol):
    """Answers that are written together. Its library's resources are freed by `close`."""

    def step(self) -> None:
        """Add a token to each of its answers that is not done. Raises RigflowError: that of all of them."""
        ...

    def drop(self, asked: Asked) -> None:
        """One of its answers gets no more tokens."""
        ...

    def close(self) -> None:
        """All of its answers are done, or dropped."""
        ...


@dataclass(slots=True, eq=False)
class Asking:
    """The answers of one session that wait for a place, within its limits. Its subclasses write the others."""

    limits: Limits
    _waiting: list[Asked] = field(default_factory=list, init=False)

    @property
    def room(self) -> int:
        """How many more answers can be begun without waiting for others to end."""
        return max(0, self._free - len(self._waiting))

    @property
    def busy(self) -> bool:
        """Whether there are answers that are not done."""
        return bool(self._waiting or self._taken)

    def add(self, request: AnswerRequest, answer: Answer) -> None:
        """Begin an answer at one of the next steps."""
        asked = Asked(request, answer)
        answer.prompt_tokens = len(request.tokens)
        answer.cancel = lambda: self._cancel(asked)
        self._waiting.append(asked)

    def hurry(self) -> None:
        """A person's question comes: a step for bulk alone may end at once. Called by any thread."""

    @property
    def _taken(self) -> int:
        """Places of the answers that are written."""
        raise NotImplementedError

    @property
    def _free(self) -> int:
        return self.limits.slots - self._taken

    @property
    def _urgent_waiting(self) -> list[Asked]:
        return [each for each in self._waiting if each.request.urgent]

    @property
    def _bulk_waiting(self) -> list[Asked]:
        return [each for each in self._waiting if not each.request.urgent]

    def _put_back(self, begun: Sequence[Asked]) -> None:
        """Make room for all answers that people wait for, as far as it is taken by bulk."""
        missing = len(self._urgent_waiting) - self._free
        bulk = [each for each in begun if not (each.request.urgent or each.put_back)]
        for asked in sorted(bulk, key=lambda each: each.answer.tokens)[: max(0, missing)]:
            asked.put_back = True
            self._leave(asked)
            asked.answer.repeat()
            self._waiting.insert(0, asked)

    def _leave(self, asked: Asked) -> None:
        """Take an answer from its place."""
        raise NotImplementedError

    def _tidy(self) -> None:
        """Take away answers that are done."""
        raise NotImplementedError

    def _cancel(self, asked: Asked) -> None:
        asked.answer.end("cancelled")
        if asked in self._waiting:
            self._waiting.remove(asked)
        self._tidy()


@dataclass(slots=True, eq=False)
class _Running:
    group: Group
    members: list[Asked]
    urgent: bool

    def tidy(self) -> bool:
        """Forget the members that are done; whether none is left."""
        for each in [each for each in self.members if each.answer.done]:
            self.leave(each)
        return not self.members

    def leave(self, asked: Asked) -> None:
        self.members.remove(asked)
        self.group.drop(asked)


@dataclass(slots=True, eq=False)
class Answering(Asking):
    """All answers of one session, within its limits.

    `start` makes a group, and may raise RigflowError. Answers with the same `kind` may share one; None: with no other.
    """

    start: Callable[[Sequence[Asked]], Group]
    kind: Callable[[AnswerRequest], int | None]
    _running: list[_Running] = field(default_factory=list)
    _turn: int = 0
    _waited: int = 0  # steps since the first answer of bulk waits for others

    def step(self, tick: Tick) -> None:
        """Add a token to the answers of one group: groups take turns, those of urgent answers before others."""
        self._begin_urgent()
        self._begin_bulk()
        self._turn += 1
        urgent = [each for each in self._running if each.urgent]
        others = [each for each in self._running if not each.urgent]
        for running in [*urgent, *others][:1] if self._turn % BULK_TURN else [*others, *urgent][:1]:
            self._running.remove(running)
            self._running.append(running)
            try:
                running.group.step()
            except RigflowError as error:
                for each in running.members:
                    each.answer.fail(error)
            tick()
        self._tidy()

    def clear(self) -> None:
        """Forget all answers."""
        self._waiting.clear()
        for running in self._running:
            running.group.close()
        self._running.clear()

    @property
    def _taken(self) -> int:
        return sum(len(running.members) for running in self._running)

    def _begin_urgent(self) -> None:
        self._put_back([each for running in self._running for each in running.members])
        self._tidy()
        self._begin(self._urgent_waiting[: self._free], urgent=True)

    def _leave(self, asked: Asked) -> None:
        next(running for running in self._running if asked in running.members).leave(asked)

    def _begin_bulk(self) -> None:
        """Begin a group when at least half of the places for bulk are free, and it fills them or has waited."""
        most, waiting = self.limits.bulk_slots, self._bulk_waiting
        running = sum(len(each.members) for each in self._running if not each.urgent)
        room = min(most - running, self._free)
        alone = next((each for each in waiting if self.kind(each.request) is None), None)
        if alone is not None and room > 0:
            self._begin([alone], urgent=False)
            room -= 1
        waiting = [each for each in waiting if self.kind(each.request) is not None]
        self._waited = self._waited + 1 if waiting else 0
        if not running or (2 * room >= most and (len(waiting) >= room or self._waited > BULK_TURN)):
            self._begin(waiting[: max(0, room)], urgent=False)
            self._waited = 0

    def _begin(self, chosen: Sequence[Asked], urgent: bool) -> None:
        for members in self._grouped(chosen):
            for each in members:
                self._waiting.remove(each)
            try:
                self._running.append(_Running(self.start(members), members, urgent))
            except RigflowError as error:
                for each in members:
                    each.answer.fail(error)

    def _grouped(self, chosen: Sequence[Asked]) -> Iterator[list[Asked]]:
        """Divide answers into groups. Questions of a group are padded to the longest of them."""
        kinds: dict[int, list[Asked]] = {}
        for each in sorted(chosen, key=lambda each: len(each.request.tokens)):
            kind = self.kind(each.request)
            if kind is None:
                yield [each]
                continue
            group = kinds.setdefault(kind, [])
            if group and not self._fits([*group, each]):
                yield group
                group = kinds[kind] = []
            group.append(each)
        yield from kinds.values()

    def _fits(self, group: Sequence[Asked]) -> bool:
        """Whether answers can be of one group. The last one has the longest question, to which others are padded."""
        length, most = len(group[-1].request.tokens), max(each.request.max_tokens for each in group)
        quick = len(group) <= _FEW or len(group) * length <= self.limits.read
        return quick and length + most <= self.limits.context

    def _tidy(self) -> None:
        for running in list(self._running):
            if running.tidy():
                running.group.close()
                self._running.remove(running)

"""The parts that continuous operators work on: answers of language models, which begin and end independently.

Such a part joins work that is going on, so that it waits for no other part to end. Between two steps of that work the
computing thread is free for other tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engines.continuous import NewText, Running, Stepping
from schemas.jobs import Priority
from schemas.results import Delta
from workers.in_flight import InFlight, Task

DELTA_EVERY_S = 0.05  # least time between two messages of a part; text that is new meanwhile travels together


@dataclass(slots=True, eq=False)
class Work:
    """A part that is worked on: its task, which stays active, and the session that steps it."""

    task: Task
    running: Running
    session: Stepping
    sent_s: float = 0.0
    counted: dict[int, int] = field(default_factory=dict)  # answer that has begun -> tokens that are in the metrics

    @property
    def message(self) -> InFlight:
        """The message that it derives from."""
        return self.task.message

    @property
    def begins(self) -> bool:
        """Whether its first text is written and not sent."""
        return not self.sent_s and any(answer.first_s for answer in self.running.answers)

    def news(self, now_s: float) -> list[NewText]:
        """What is new in its answers, if the last news are at least `DELTA_EVERY_S` old, or all is done."""
        if now_s - self.sent_s < DELTA_EVERY_S and not self.running.done:
            return []
        found = list(self.running.news())
        self.sent_s = now_s if found else self.sent_s
        return found

    def deltas(self, news: Sequence[NewText]) -> list[Delta]:
        """Messages of what is new."""
        part = self.task.part
        assert part is not None, "a part is worked on"
        return [
            Delta(
                key=part.meta.key,
                generation=self.message.delivery.deliveries,
                row=new.row,
                name=new.name,
                number=new.number,
                text=new.text,
            )
            for new in news
        ]

    def new_tokens(self) -> tuple[int, list[float]]:
        """Tokens since the last call, and of each answer that began the seconds from message to first token."""
        tokens: int = 0
        firsts: list[float] = []
        for number, answer in enumerate(self.running.answers):
            if not answer.first_s:
                continue
            if number not in self.counted:
                firsts.append(answer.first_s - self.message.taken_s)
            tokens += answer.tokens - self.counted.get(number, 0)
            self.counted[number] = answer.tokens
        return tokens, firsts


class Continuing:
    """All parts that are worked on in this worker."""

    def __init__(self) -> None:
        self._work: list[Work] = []

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return bool(self._work)

    @property
    def urgent(self) -> bool:
        """Whether a person waits for one of them. Called by any thread."""
        return any(is_urgent(work.message) for work in list(self._work))

    @property
    def pipelines(self) -> set[str]:
        """Names of the pipelines at work."""
        return {work.task.pipeline.spec.name for work in self._work}

    @property
    def places(self) -> int:
        """How many answers the sessions at work can write at a time."""
        return sum(session.places for session, _ in self.by_session())

    @property
    def has_room(self) -> bool:
        """Whether each session at work could begin another answer now."""
        return self.busy and all(session.room for session, _ in self.by_session())

    def add(self, work: Work) -> None:
        """A part is worked on from now on."""
        self._work.append(work)

    def by_session(self) -> Iterator[tuple[Stepping, Sequence[Work]]]:
        """Yield each session at work, and its parts."""
        sessions = {id(work.session): work.session for work in self._work}
        for number, session in sessions.items():
            yield session, [work for work in self._work if id(work.session) == number]

    def hurry(self, pipeline: str) -> None:
        """A part of a pipeline came that a person waits for: steps of its models for bulk alone may end at once."""
        for session, works in self.by_session():
            if any(work.task.pipeline.spec.name == pipeline for work in works):
                session.hurry()

    @property
    def useless(self) -> list[Work]:
        """Work whose message is settled, or will be delivered again."""
        return [work for work in self._work if work.message.useless]

    def take(self, works: Sequence[Work]) -> None:
        """These works, which are done, have failed or are useless, are no longer here."""
        self._work = [work for work in self._work if work not in works]


def is_urgent(message: InFlight) -> bool:
    """Whether a person waits for a message."""
    return message.queue.priority is Priority.INTERACTIVE

"""Simulated jobs, and the queues that their pieces wait in: bounded in bytes, with two priorities."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from placement.costs import Work


@dataclass(slots=True)
class SimJob:
    """A job that runs: `left` parts have no result yet. Jobs of one `kind` are alike. `batch` parts are one step.

    `decoded`: the first stage that decode does not do in its own step. `spills`: parts may go to other workers in front
    of it; not where a stage needs them in order.
    """

    kind: int
    work: Work
    parts: int  # of each piece
    batch: int
    interactive: bool
    at_s: float
    left: int
    tenant: str = ""
    end_s: float = float("inf")
    decoded: int = field(init=False)
    spills: bool = field(init=False)

    def __post_init__(self) -> None:
        stages = self.work.stages
        of_decode = (at for at, stage in enumerate(stages) if at and not (stage.of_decode and not stage.model))
        self.decoded = next(of_decode, 1)
        self.spills = not any(stage.of_decode for stage in stages[self.decoded :])


class Piece:
    """One piece of a job. `done` has a bit for each part with a result; `factor` is how long it takes, by its cost."""

    __slots__ = ("done", "factor", "job")

    def __init__(self, job: SimJob, factor: float) -> None:
        self.job, self.factor, self.done = job, factor, 0


class Message:
    """Some parts of a piece in front of a stage: all of them in front of the first one, later one each.

    `copied`: it is a copy, or has one.
    """

    __slots__ = ("copied", "first", "nbytes", "parts", "piece", "queue", "taken")

    def __init__(self, piece: Piece, queue: "SimQueue", first: int, parts: int, nbytes: float) -> None:
        self.piece, self.queue, self.first, self.parts, self.nbytes = piece, queue, first, parts, nbytes
        self.taken = 0  # how often a worker took it
        self.copied = False


class SimQueue:
    """The queue of a tenant in front of stage `stage` of a pipeline. Its bytes count until a message is settled.

    `promised`: parts that are on their way to it, because workers wait there.
    """

    __slots__ = (
        "_full",
        "limit",
        "messages",
        "most_bytes",
        "most_messages",
        "nbytes",
        "pipeline",
        "promised",
        "stage",
        "tenant",
        "waiting",
    )

    def __init__(self, pipeline: str, stage: int, tenant: str, limit: float) -> None:
        self.pipeline, self.stage, self.tenant, self.limit = pipeline, stage, tenant, limit
        self.waiting: tuple[deque[Message], deque[Message]] = (deque(), deque())  # interactive, bulk
        self.nbytes, self.most_bytes = 0.0, 0.0
        self.messages, self.most_messages = 0, 0
        self.promised = 0
        self._full: deque[Callable[[], None]] = deque()  # called when there is room

    @property
    def messages_waiting(self) -> int:
        """Messages that no worker has."""
        return len(self.waiting[0]) + len(self.waiting[1])

    def has_room(self, nbytes: float) -> bool:
        """Whether a message fits; one that is larger than the queue fits into an empty one."""
        return self.nbytes + nbytes <= self.limit or not self.messages

    def push(self, message: Message) -> None:
        """Add a new message."""
        self.nbytes += message.nbytes
        self.messages += 1
        self.most_bytes, self.most_messages = max(self.most_bytes, self.nbytes), max(self.most_messages, self.messages)
        self.waiting[not message.piece.job.interactive].append(message)

    def return_(self, message: Message) -> None:
        """A message that a worker did not finish waits again, before all others."""
        self.waiting[not message.piece.job.interactive].appendleft(message)

    def settle(self, message: Message) -> None:
        """A message is done: its bytes are free."""
        self.nbytes -= message.nbytes
        self.messages -= 1
        for _ in range(len(self._full)):
            self._full.popleft()()

    def when_room(self, call: Callable[[], None]) -> None:
        """Call when a message was settled, once."""
        self._full.append(call)

"""What simulated workers share: their settings, the resources of their machine, and what they ask the broker for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from placement.costs import Cost
from placement.events import Resource
from placement.fair_share import FairShare
from placement.fleet import MOST_DECODERS
from placement.simulated_queues import Message, Piece, SimQueue

Phases = tuple[tuple[Resource, float], ...]


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """The settings of workers by which they fetch, as in docs/settings.md, the broker's answer time, how long a
    batch that is not full waits for further parts, and what a publisher takes for a piece."""

    prefetch_s: float = 0.03
    credit_items: int = 8
    credit_bytes: float = float(64 << 20)
    queue_bytes: float = float(256 << 20)
    ack_wait_s: float = 10.0
    decoders: int = MOST_DECODERS
    bulk_turn: int = 8
    latency_s: float = 0.002
    batch_delay_s: float = 0.005
    publish_s: float = 0.0003
    weights: Mapping[str, float] = field(default_factory=dict)  # of tenants, for `placement.fair_share`


@dataclass(frozen=True, slots=True)
class SimRole:
    """The numbers of the stages that a worker runs of a kind of job, and of those whose queues it takes pieces from."""

    runs: frozenset[int]
    takes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Machine:
    """The resources that a worker shares with others: those of its rig and of its device."""

    cores: Resource
    network_in: Resource
    network_out: Resource
    compute: Resource
    decoder: Resource
    encoder: Resource
    link: Resource
    link_back: Resource
    network_bytes_per_s: float

    def phases(self, cost: Cost, parts: int, decodes: bool) -> Phases:
        """What one of so many parts uses, in order. What is decoded crosses the PCIe link to the device, all else back:
        it carries both ways at a time."""
        pairs = (
            (self.link if decodes else self.link_back, cost.link_s),
            (self.decoder, cost.decoder_s),
            (self.compute, cost.compute_s),
            (self.encoder, cost.encoder_s),
            (self.cores, cost.core_s),
        )
        return tuple((resource, seconds / parts) for resource, seconds in pairs if seconds > 0.0)


class Pace(Protocol):
    """The pace of a worker, and what it did for each tenant."""

    @property
    def shares(self) -> FairShare:
        """The tags of the tenants."""
        ...

    def message_s(self, queue: tuple[int, int]) -> float:
        """Seconds of a message of a kind of job and a stage; 0: not known yet."""
        ...


class Taker(Protocol):
    """What the broker knows of a worker: its messages so far, and what it does of each kind of job."""

    taken: int
    roles: Mapping[int, SimRole]

    @property
    def held(self) -> Mapping[Message, "Held"]:
        """Its messages."""
        ...

    @property
    def credit(self) -> "Pace":
        """What it knows of its pace."""
        ...

    @property
    def decoded_ahead(self) -> bool:
        """Whether it needs no parts of others."""
        ...

    def refill(self) -> None:
        """Ask for messages."""
        ...

    def wants(self) -> int:
        """How many messages it fetches now."""
        ...

    def give(self) -> None:
        """A message has come for which it waits."""
        ...

    def hand_back(self, message: Message) -> bool:
        """Give back a message that it has not begun; whether it had not."""
        ...


class Broker(Protocol):
    """What a worker asks the simulation for."""

    def take(self, worker: Taker) -> Message | None:
        """The next message of a queue that it hosts; without one, the worker is called when one comes."""
        ...

    def workers_wait(self, worker: Taker, stage: int, piece: Piece) -> bool:
        """Whether another worker that hosts the stage waits for work."""
        ...

    def publish(self, piece: Piece, stage: int, part: int, nbytes: float) -> bool:
        """Put a part in front of a later stage; False: there is no room."""
        ...

    def queue_of(self, piece: Piece, stage: int) -> SimQueue:
        """The queue of a stage."""
        ...

    def serve(self, tenant: str, seconds: float, since_s: float) -> None:
        """A worker computed so many seconds for a tenant, from a moment until now."""
        ...

    def result(self, piece: Piece, part: int) -> None:
        """A part has its result."""
        ...


class Held:
    """A message in a worker's hands, and how many of its parts are `decoded`, `taken` to be computed, and `settled`."""

    __slots__ = ("decoded", "expected_s", "message", "settled", "spent_s", "stage", "taken", "taken_s")

    def __init__(self, message: Message, expected_s: float, taken_s: float) -> None:
        self.taken_s = taken_s
        self.message = message
        self.stage = message.queue.stage
        self.expected_s, self.spent_s = expected_s, 0.0
        self.decoded = self.taken = self.settled = 0

    @property
    def undecoded(self) -> bool:
        """Whether parts of it are still to be decoded."""
        return self.stage == 0 and self.decoded < self.message.parts

    @property
    def ahead(self) -> bool:
        """Whether its next part is decoded, and waits behind parts of other messages."""
        return self.decoded > self.taken

    @property
    def untaken(self) -> bool:
        """Whether the computing thread still gets parts of it from a decoder."""
        return self.stage == 0 and self.taken < self.message.parts

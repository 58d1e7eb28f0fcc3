"""What the stages of a job cost a simulated worker, in seconds of the resources of its machine."""

from collections.abc import Mapping, Sequence

from placement.costs import NOTHING, Cost
from placement.simulated_machine import Machine, Phases, SimRole
from placement.simulated_queues import Message


class Stages:
    """The costs of one worker, by kind of job and stage, and the stages that it runs."""

    def __init__(self, machine: Machine, costs: Mapping[int, Sequence[Cost]], roles: Mapping[int, SimRole]) -> None:
        self._machine, self._costs, self._roles = machine, costs, roles
        self._phases: dict[tuple[int, int, int, int], Phases] = {}

    def end(self, message: Message, first: int) -> int:
        """The first stage behind those that the worker does one after the other from `first` on."""
        runs, end = self._roles[message.piece.job.kind].runs, first
        while end in runs:
            end += 1
        return end

    def computes(self, message: Message) -> bool:
        """Whether the worker runs the stage behind decode, too."""
        return message.piece.job.decoded in self._roles[message.piece.job.kind].runs

    def phases(self, message: Message, first: int, end: int) -> Phases:
        """What one part uses of the machine from stage `first` to `end`, without it."""
        job = message.piece.job
        key = job.kind, first, end, job.parts
        if key not in self._phases:
            total = sum(self._costs[job.kind][first:end], NOTHING)
            self._phases[key] = self._machine.phases(total, job.parts, first == 0)
        return self._phases[key]

    def seconds(self, message: Message, first: int, end: int) -> float:
        """How long a part takes for these stages."""
        return sum(seconds for _, seconds in self.phases(message, first, end)) * message.piece.factor

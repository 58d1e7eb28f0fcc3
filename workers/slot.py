"""A supervisor's record of one worker: its options, its current process, and counts of earlier processes."""

import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.forkserver import WorkerProcess
from workers.options import WorkerOptions
from workers.telemetry import Heartbeat, StageCounts

DEATHS, DEATHS_WITHIN_S = 5, 60.0  # this many deaths within this time, and the worker is given up

Stages = Mapping[tuple[str, str], StageCounts]


@dataclass(slots=True)
class Slot:
    """One worker over its lifetime; its process may be replaced.

    States repeat: no process (`down`), a process without heartbeat (`starting`), with heartbeats, an exit, a pause; the
    last state is `given_up`. `silent_s` counts checks of the supervisor, so that a machine that was suspended does not
    kill its workers. `retired` are the counts of earlier processes. `ended_at_candidate`: the last process
    ended while it worked on a poison candidate. `deaths` are those within `DEATHS_WITHIN_S` that count against the
    device: the time, and the parts that were finished before that process started.
    """

    options: WorkerOptions
    process: WorkerProcess | None = None
    channel: socket.socket | None = None
    heartbeat: Heartbeat | None = None
    silent_s: float = 0.0
    being_killed: str = ""  # why
    oom_kills: int = 0
    load_alone: bool = False
    ended_at_candidate: bool = False
    deaths: deque[tuple[float, int]] = field(default_factory=deque)
    parts_before: int = 0
    died: int = 0
    failed_starts: int = 0
    last_exit: str = ""
    given_up: bool = False
    abandoned: str = ""
    retired: dict[tuple[str, str], StageCounts] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    @property
    def state(self) -> str:
        """The state for `rigflow status`."""
        if self.given_up:
            return "given up"
        if not self.running:
            return "down" if self.last_exit else "starting"
        return self.heartbeat.state if self.heartbeat else "starting"

    @property
    def unready(self) -> str:
        """Why this worker is not ready; empty when it is."""
        if self.given_up or (not self.running and self.last_exit):
            return f"{self.state}, last exit: {self.last_exit}"
        return self.heartbeat.why if self.heartbeat else "starting"

    def paces(self) -> dict[tuple[str, str], tuple[int, float]]:
        """Frames and seconds of each (pipeline, stage), in all processes of this slot."""
        total: dict[tuple[str, str], StageCounts] = {}
        add_counts(total, self.retired)
        add_counts(total, self.heartbeat.stages if self.heartbeat else {})
        return {key: (counts.frames, counts.seconds) for key, counts in total.items() if counts.frames}

    def retire(self) -> None:
        """Add the counts of the process that ended to `retired`."""
        self.ended_at_candidate = self.heartbeat is not None and self.heartbeat.poison_candidate
        if self.heartbeat is not None:
            add_counts(self.retired, self.heartbeat.stages)
        self.heartbeat = None

    def count_crash(self, now_s: float) -> None:
        """Count a death against the device, unless the input is suspected and the device did other work.

        It did other work when parts were finished since the start of the process whose death is the oldest in `deaths`.
        So two inputs that crash every worker do not cost a rig its only device, and a device that finishes nothing is
        given up whatever its inputs are.
        """
        while self.deaths and now_s - self.deaths[0][0] >= DEATHS_WITHIN_S:
            self.deaths.popleft()
        parts = sum(counts.parts for counts in self.retired.values())
        if not (self.ended_at_candidate and self.deaths and parts > self.deaths[0][1]):
            self.deaths.append((now_s, self.parts_before))
        self.parts_before = parts


def describe_work(heartbeat: Heartbeat | None) -> str:
    """What a worker does, by its last heartbeat."""
    if heartbeat is None:
        return "it has sent no heartbeat yet"
    items = f"holds {heartbeat.in_flight} {'item' if heartbeat.in_flight == 1 else 'items'}"
    return f"{items}, computes {heartbeat.step} since {heartbeat.step_s:.1f} s" if heartbeat.step else items


def add_counts(total: dict[tuple[str, str], StageCounts], stages: Stages) -> None:
    """Add the counts of one process to a total."""
    for key, counts in stages.items():
        total.setdefault(key, StageCounts()).add(counts)

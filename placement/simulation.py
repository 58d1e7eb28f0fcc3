"""A fleet in simulated time, with workers that fetch, decode, compute and spill as real ones.

What is not simulated: loading models, batches that wait to be full, the collector, and the publisher's own speed.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from placement.costs import Cost, Work, cost
from placement.events import Clock, Resource
from placement.fleet import Device, Fleet, Rig
from placement.groups import DEVICE_UNITS
from placement.routes import Placement, Role
from placement.simulated import Fault, JobEnd, QueueUse, Simulated, Submission, Use
from placement.simulated_broker import SimBroker
from placement.simulated_machine import Machine, SimRole, WorkerRules
from placement.simulated_queues import Piece, SimJob, SimQueue
from placement.simulated_worker import SimWorker

MOST_PIECES = 8_000  # that are simulated one by one; with more, neighbours of a job count as one piece
_GROUPED_PARTS = 4  # at most, of such a piece


def simulate(
    fleet: Fleet,
    submissions: Sequence[Submission],
    placements: Sequence[Placement],
    rules: WorkerRules | None = None,
    faults: Sequence[Fault] = (),
    jitter: float = 0.0,
    seed: int = 0,
) -> Simulated:
    """Run jobs on a fleet, each submission by its placement. Equal arguments give equal answers.

    `jitter`: the spread of the pieces' times, as the sigma of a lognormal factor.
    """
    return _Simulation(fleet, submissions, rules or WorkerRules(), jitter, seed, placements).run(faults)


class _Simulation:
    """A fleet's machines and workers, around their broker."""

    def __init__(
        self,
        fleet: Fleet,
        submissions: Sequence[Submission],
        rules: WorkerRules,
        jitter: float,
        seed: int,
        placements: Sequence[Placement],
    ) -> None:
        self._fleet, self._given, self._placements = fleet, submissions, tuple(placements)
        self._jitter, self._random = jitter, random.Random(seed)
        total = sum(each.count * each.work.pieces for each in submissions)
        self._grouped = max(1, -(-total // MOST_PIECES))
        times = float(self._grouped)
        self._rules = replace(
            rules,
            credit_bytes=times * rules.credit_bytes,
            queue_bytes=times * rules.queue_bytes,
            publish_s=times * rules.publish_s,
        )
        self._works = [_grouped(each.work, self._grouped) for each in submissions]
        self._clock = Clock()
        self._jobs = self._make_jobs()
        self._broker = SimBroker(self._clock, self._rules, len(self._jobs), self._end_flow)
        self._resources: list[Resource] = []
        self._workers: dict[str, list[SimWorker]] = {}  # by device
        for rig in fleet.rigs:
            self._add_rig(rig)
        self._flow_s = 0.0
        self._flow_used: dict[str, float] = {}

    def _make_jobs(self) -> list[SimJob]:
        jobs = []
        for kind, (given, work) in enumerate(zip(self._given, self._works, strict=True)):
            parts = given.parts if self._grouped == 1 else min(given.parts, _GROUPED_PARTS)
            batch = max(1, given.batch // self._grouped)
            left = parts * work.pieces
            job = kind, work, parts, batch, given.interactive, given.at_s, left, given.tenant
            jobs += [SimJob(*job) for _ in range(given.count)]
        return jobs

    def _add_rig(self, rig: Rig) -> None:
        cores = self._resource("cores", rig.name, rig.cores)
        inward, outward = self._resource("network in", rig.name), self._resource("network out", rig.name)
        for device in rig.devices:
            compute, decoder, encoder, link = (self._resource(kind, device.name) for kind in DEVICE_UNITS)
            links = link, self._resource("link back", device.name), rig.link_bytes_per_s
            machine = Machine(cores, inward, outward, compute, decoder, encoder, *links)
            costs = {kind: self._costs(kind, rig, device) for kind in range(len(self._given))}
            roles = {kind: self._sim_role(kind, device) for kind in range(len(self._given))}
            at_a_time = 1 if device.is_cpu else min(self._rules.decoders, device.pieces(rig.cores))
            names = [device.name] if device.workers == 1 else [f"{device.name}-{n}" for n in range(device.workers)]
            of_device = machine, self._rules, self._broker, costs, roles, not device.is_cpu, at_a_time
            self._workers[device.name] = [SimWorker(name, self._clock, *of_device) for name in names]
            self._broker.workers += self._workers[device.name]

    def _resource(self, kind: str, owner: str, capacity: int = 1) -> Resource:
        made = Resource(self._clock, kind, owner, capacity)
        self._resources.append(made)
        return made

    def _costs(self, kind: int, rig: Rig, device: Device) -> list[Cost]:
        work = self._given[kind].work
        times = float(self._grouped)
        return [_times(cost(work, stage, rig, device), times) for stage in work.stages]

    def _sim_role(self, kind: int, device: Device) -> SimRole:
        names = self._given[kind].work.names
        role = self._placements[kind].roles.get(device.name, Role())
        return SimRole(frozenset(map(names.index, role.runs)), frozenset(map(names.index, role.takes)))

    def _pieces(self, job: SimJob) -> Iterator[Piece]:
        given = self._given[job.kind].work.pieces
        for number in range(job.work.pieces):
            factor = self._random.lognormvariate(0.0, self._jitter) if self._jitter else 1.0
            real = min(self._grouped, given - number * self._grouped) / self._grouped
            yield Piece(job, factor * real)

    def run(self, faults: Sequence[Fault]) -> Simulated:
        """Run until all jobs have ended, or nothing more can happen."""
        for job in self._jobs:
            self._clock.after(job.at_s, self._broker.arrive, job, self._pieces(job))
        for fault in faults:
            self._clock.after(fault.at_s, self._fail, fault)
        for workers in self._workers.values():
            for worker in workers:
                self._clock.after(0.0, worker.refill)
        self._clock.run(lambda: not self._broker.open)
        return self._outcome()

    def _fail(self, fault: Fault) -> None:
        rig = next((rig for rig in self._fleet.rigs if rig.name == fault.name), None)
        devices = [device.name for device in rig.devices] if rig else [fault.name]
        late_s = self._rules.ack_wait_s if rig else self._rules.latency_s
        for worker in (worker for name in devices for worker in self._workers[name]):
            for message in worker.end():
                self._clock.after(late_s, self._broker.return_, message)
            if fault.seconds < math.inf:
                self._clock.after(fault.seconds, worker.start)

    def _end_flow(self) -> None:
        self._flow_s, self._flow_used = self._clock.now_s, self._used()

    def _used(self) -> dict[str, float]:
        used = {resource.name: resource.used_s for resource in self._resources}
        return used | {f"worker {worker.name}": worker.busy_s for worker in self._all_workers()}

    def _all_workers(self) -> Iterator[SimWorker]:
        return (worker for workers in self._workers.values() for worker in workers)

    def _outcome(self) -> Simulated:
        ends = [job.end_s for job in self._jobs if job.end_s < math.inf]
        finish_s = max(ends, default=0.0)
        flow_s, flow_used = self._flow_s, self._flow_used
        if not flow_used or flow_s <= 0.0:
            flow_s, flow_used = self._clock.now_s, self._used()
        used = self._used()
        owners = [(each.kind, each.owner, each.name, each.capacity) for each in self._resources]
        owners += [("worker", worker.name, f"worker {worker.name}", 1) for worker in self._all_workers()]
        uses = tuple(
            Use(kind, owner, _share(used[name], capacity, finish_s), _share(flow_used[name], capacity, flow_s))
            for kind, owner, name, capacity in owners
        )
        pieces: Counter[str] = Counter()
        for device, workers in self._workers.items():
            pieces[device] = sum(worker.pieces for worker in workers) * self._grouped
        queues = tuple(self._queue_use(queue) for _, queue in sorted(self._broker.queues.items()))
        jobs = tuple(JobEnd(job.at_s, job.end_s) for job in self._jobs)
        again, shares = self._broker.repeated, (self._broker.shares, self._broker.shared_s)
        found = finish_s, flow_s, jobs, uses, queues, pieces, again, self._grouped, self._placements, *shares
        return Simulated(*found)

    def _queue_use(self, queue: SimQueue) -> QueueUse:
        names = next(work.names for work in self._works if work.pipeline == queue.pipeline)
        nbytes, limit = queue.most_bytes / self._grouped, queue.limit / self._grouped
        return QueueUse(queue.pipeline, names[queue.stage], queue.most_messages, nbytes, limit)


def _share(used_s: float, capacity: int, seconds: float) -> float:
    return min(1.0, used_s / (capacity * seconds)) if seconds > 0.0 else 0.0


def _grouped(work: Work, times: int) -> Work:
    """The same work in fewer, larger pieces."""
    if times == 1:
        return work
    stages = tuple(replace(stage, gives_bytes=times * stage.gives_bytes) for stage in work.stages)
    return replace(work, stages=stages, pieces=-(-work.pieces // times), piece_bytes=times * work.piece_bytes)


def _times(each: Cost, times: float) -> Cost:
    return Cost(
        each.compute_s * times,
        each.decoder_s * times,
        each.encoder_s * times,
        each.link_s * times,
        each.core_s * times,
        each.estimated,
    )

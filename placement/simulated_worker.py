"""A simulated worker: it fetches with credit, decodes ahead, keeps parts or spills them, and settles messages."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from placement.costs import Cost
from placement.events import Clock, in_turn
from placement.simulated_credit import Credit
from placement.simulated_machine import Broker, Held, Machine, SimRole, WorkerRules
from placement.simulated_queues import Message
from placement.simulated_ready import Ready, ReadyParts, are_ahead
from placement.simulated_stages import Stages

_AHEAD = 2  # parts of one piece that a decoder makes before they are taken


class SimWorker:
    """One worker process on a device. `overlapped`: it decodes on threads of their own, as on a GPU, `concurrency`
    segments at a time. `costs` and `roles`: what each stage costs, and which it does, by kind of job. `generation`
    counts its starts: what an earlier process began, ends without effect.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        machine: Machine,
        rules: WorkerRules,
        broker: Broker,
        costs: Mapping[int, Sequence[Cost]],
        roles: Mapping[int, SimRole],
        overlapped: bool,
        concurrency: int,
    ) -> None:
        self.name, self.machine, self.roles = name, machine, roles
        self.overlapped, self.concurrency = overlapped, concurrency
        self.alive, self.generation, self.pieces, self.taken, self.busy_s = True, 0, 0, 0, 0.0
        self._clock, self._rules, self._broker = clock, rules, broker
        self.credit = Credit(rules, self.concurrency)
        self._stages = Stages(machine, costs, roles)
        self._reset()

    def _reset(self) -> None:
        self.held: dict[Message, Held] = {}
        self._ready = ReadyParts(self._rules.batch_delay_s)
        self._to_decode: tuple[deque[Held], deque[Held]] = (deque(), deque())
        self._ahead: tuple[deque[Ready], deque[Ready]] = (deque(), deque())
        self._decoding, self._undecoded, self._coming, self._nbytes = 0, 0, 0, 0.0
        self._running: list[Held] = []
        self._since_s, self._blocked, self._again_s, self._ended_s = 0.0, 0, math.inf, 0.0

    def wants(self) -> int:
        """How many messages it fetches now."""
        if not self.alive or self._blocked:
            return 0
        running_s, ready = self._clock.now_s - self._since_s, sum(map(len, (*self._ahead, *self._ready.by_priority)))
        given = self.held.values(), self._undecoded, ready, self._nbytes, self._running, running_s
        wanted, again_s = self.credit.wants(*given)
        self._look_again(again_s)
        return wanted

    @property
    def decoded_ahead(self) -> bool:
        """Whether enough is decoded here: it needs no parts of others."""
        return self.overlapped and are_ahead(*self._ahead, *self._ready.by_priority)

    def _look_again(self, seconds: float) -> None:
        """Refill again when the work that it holds is about to end."""
        at_s = self._clock.now_s + seconds
        if seconds < math.inf and not self._clock.now_s < self._again_s <= at_s:
            self._again_s = at_s
            self._clock.after(seconds + 1e-6, self._later, self.refill, self.generation)

    def refill(self) -> None:
        """Fetch what there is credit for."""
        for _ in range(self.wants()):
            if (message := self._broker.take(self)) is None:
                return
            self._fetch(message)

    def give(self) -> None:
        """A message has come for which this worker waits; it asks for more once that is here."""
        if (message := self._broker.take(self)) is not None:
            self._fetch(message)

    def _fetch(self, message: Message) -> None:
        self.taken += 1
        message.taken += 1
        pace_s = self.credit.pace_s((message.piece.job.kind, message.queue.stage))
        held = self.held[message] = Held(message, pace_s, self._clock.now_s)
        self.credit.serve(held)
        self._nbytes += message.nbytes
        self._undecoded += message.queue.stage == 0
        seconds = message.nbytes / self.machine.network_bytes_per_s
        self.machine.network_in.use(seconds, self._come, message, self.generation)

    def _come(self, message: Message, generation: int) -> None:
        if generation == self.generation:
            self._coming += 1
            self._clock.after(self._rules.latency_s, self._arrive, message, generation)

    def _arrive(self, message: Message, generation: int) -> None:
        if generation != self.generation:
            return
        self._coming -= 1
        held, interactive = self.held[message], message.piece.job.interactive
        if held.stage == 0:
            self._to_decode[not interactive].append(held)
        else:
            self._ready.add(held, message.first)
        self._go_on()
        self.refill()

    def _go_on(self) -> None:
        """Begin whatever can begin: decoders, and a step, also while a queue is full: it may hold our own parts."""
        if not self._running:
            self._take_ahead()
            self._step()
        if self.overlapped:
            self._decode_ahead()

    def _later(self, call: Callable[[], None], generation: int) -> None:
        if generation == self.generation:
            call()

    def _decode_ahead(self) -> None:
        """Keep the decoders busy, each segment at most `_AHEAD` parts ahead of the computing thread."""
        for waiting in self._to_decode:
            for _ in range(len(waiting)):
                if self._decoding >= self.concurrency:
                    return
                held = waiting.popleft()
                if held.decoded - held.taken >= _AHEAD:
                    waiting.append(held)
                else:
                    self._decoding += 1
                    phases = self._stages.phases(held.message, 0, held.message.piece.job.decoded)
                    in_turn(phases, held.message.piece.factor, self._decoded, held, self.generation)

    def _decoded(self, held: Held, generation: int) -> None:
        if generation != self.generation:
            return
        self._decoding -= 1
        interactive = held.message.piece.job.interactive
        self._ahead[not interactive].append((held, held.message.first + held.decoded))
        held.decoded += 1
        if held.undecoded:
            self._to_decode[not interactive].appendleft(held)
        self._go_on()

    def _take_ahead(self) -> None:
        """Take what was decoded ahead, until there is a full batch."""
        for ahead in self._ahead:
            while ahead and not self._blocked:
                held, part = ahead[0]
                if self._stages.computes(held.message) and self._ready.full(held) and not self._feeds(held):
                    break
                ahead.popleft()
                self._take(held, part)

    def _take(self, held: Held, part: int) -> None:
        """A decoded part goes to the computing thread, or to other workers, which wait for it."""
        message, held.taken = held.message, held.taken + 1
        self._undecoded -= not held.untaken
        behind, computes = message.piece.job.decoded, self._stages.computes(message)
        spills = computes and self._ready.full(held) and self._others_wait(message, behind)
        if spills or not computes:
            self._broker.queue_of(message.piece, behind).promised += spills
            self._hand_on(held, part, behind)
        else:
            self._ready.add(held, part)
        self.refill()

    def _others_wait(self, message: Message, stage: int) -> bool:
        """Whether other workers wait for parts, and a step takes long enough to be worth the way to them."""
        if not message.piece.job.spills or message.parts == 1:
            return False
        seconds = self._stages.seconds(message, stage, self._stages.end(message, stage))
        return seconds >= self._rules.prefetch_s and self._broker.workers_wait(self, stage, message.piece)

    def _feeds(self, held: Held) -> bool:
        """Whether it decodes more of a piece before it computes, because others wait for parts."""
        able = held.untaken and self._ready.is_step(held)
        return able and self._others_wait(held.message, held.message.piece.job.decoded)

    def _may_wait(self, held: Held) -> bool:
        return not (held.ahead or (self.overlapped and len(self.held) >= self.concurrency))

    def _step(self) -> None:
        """Begin the next step: the latest stage first, interactive first; without one, a decode."""
        waits_s = self._ready.waits_s(self._clock.now_s, self._coming) if self.overlapped else 0.0
        if waits_s > 0.0:
            if waits_s < math.inf:
                self._clock.after(waits_s, self._later, self._go_on, self.generation)
            return
        batch, first, end = self._next()
        if not batch:
            return
        self._running, self._since_s = [held for held, _ in batch], self._clock.now_s
        phases = self._stages.phases(batch[0][0].message, first, end)
        factor = sum(held.message.piece.factor for held, _ in batch)
        in_turn(phases, factor, self._stepped, batch, end, self.generation)

    def _next(self) -> tuple[list[Ready], int, int]:
        """The parts of the next step and its stages; a part below 0 is to be decoded."""
        for ready, waiting in zip(self._ready.by_priority, self._to_decode, strict=True):
            if ready and not (self._may_wait(ready[0][0]) and self._feeds(ready[0][0])):
                batch = self._ready.batch(ready)
                first = max(batch[0][0].message.piece.job.decoded, batch[0][0].stage)
                return batch, first, self._stages.end(batch[0][0].message, first)
            if ready and self.overlapped:
                break  # until its next part is decoded
            if waiting and not self.overlapped and not self._blocked:
                return [(waiting[0], -1)], 0, waiting.popleft().message.piece.job.decoded
        return [], 0, 0

    def _stepped(self, batch: list[Ready], end: int, generation: int) -> None:
        if generation != self.generation:
            return
        took_s = self._clock.now_s - self._since_s
        self.busy_s += took_s
        self._running = []
        for held, part in batch:
            held.spent_s += took_s / len(batch)
            self._broker.serve(held.message.queue.tenant, took_s / len(batch), self._since_s)
            if part < 0:
                self._decoded_here(held)
            else:
                self._hand_on(held, part, end)
        self.refill()
        self._go_on()

    def _decoded_here(self, held: Held) -> None:
        held.decoded += 1
        if held.undecoded:
            self._to_decode[not held.message.piece.job.interactive].appendleft(held)
        self._take(held, held.message.first + held.decoded - 1)

    def _hand_on(self, held: Held, part: int, stage: int) -> None:
        """Send a part to the queue of a stage, or its result to the collector."""
        nbytes = held.message.piece.job.work.stages[stage - 1].gives_bytes / held.message.piece.job.parts
        seconds = nbytes / self.machine.network_bytes_per_s
        self.machine.network_out.use(seconds, self._sent, held, part, stage, nbytes, self.generation)

    def _sent(self, held: Held, part: int, stage: int, nbytes: float, generation: int) -> None:
        if generation != self.generation:
            return
        piece = held.message.piece
        if stage >= len(piece.job.work.stages):
            self._broker.result(piece, part)
        elif not self._broker.publish(piece, stage, part, nbytes):
            self._blocked += 1
            queue = self._broker.queue_of(piece, stage)
            queue.when_room(lambda: self._send_again(held, part, stage, nbytes, generation))
            return
        self._settle(held)

    def _send_again(self, held: Held, part: int, stage: int, nbytes: float, generation: int) -> None:
        if generation == self.generation:
            self._blocked -= 1
            self._sent(held, part, stage, nbytes, generation)
            self._go_on()

    def _settle(self, held: Held) -> None:
        """One more part of a message has its result, or is in the next queue."""
        held.settled += 1
        message = held.message
        if held.settled < message.parts:
            return
        since_s, self._ended_s = max(self._ended_s, held.taken_s), self._clock.now_s
        self.credit.took(held, self._clock.now_s - since_s)
        self._nbytes -= message.nbytes
        del self.held[message]
        self.pieces += held.stage == 0
        message.queue.settle(message)
        self.refill()

    def hand_back(self, message: Message) -> bool:
        """Give back a segment that it has not begun to decode; whether it had not."""
        held, waiting = self.held[message], self._to_decode[not message.piece.job.interactive]
        if held.decoded or held not in waiting:
            return False
        waiting.remove(held)
        self._undecoded -= 1
        self.credit.drop(self.held.pop(message))
        self._nbytes -= message.nbytes
        return True

    def end(self) -> list[Message]:
        """The process ends now; the messages that it held."""
        left, self.alive, self.generation = list(self.held), False, self.generation + 1
        self._reset()
        self.credit.forget_shares()
        return left

    def start(self) -> None:
        """A new process starts."""
        self.alive = True
        self.refill()

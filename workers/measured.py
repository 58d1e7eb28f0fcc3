"""Measures steps: adds their seconds to tasks, metrics, traces and the handoff, and reports progress to heartbeats."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from workers.handoff import Handoff
from workers.heartbeats import Heartbeats
from workers.in_flight import Task, charge
from workers.last_steps import LastSteps
from workers.telemetry import Meter
from workers.tracing import Traces


class Measured:
    """`step` records the step of some tasks that runs in its block."""

    def __init__(self, heartbeats: Heartbeats, traces: Traces, meter: Meter, handoff: Handoff) -> None:
        self._heartbeats, self._traces, self._meter, self._handoff = heartbeats, traces, meter, handoff

    @contextmanager
    def step(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Measure the step that runs in this block. All tasks are of one stage."""
        pipeline, stage, began_s = tasks[0].pipeline.spec.name, tasks[0].stage, time.monotonic()
        self._heartbeats.move()
        try:
            with self._traces.step(tasks):
                yield
        finally:
            took_s = time.monotonic() - began_s
            charge(tasks, took_s)
            self._meter.step(pipeline, stage, took_s)
            self._handoff.took(pipeline, stage, took_s)
            self._heartbeats.move()

    @contextmanager
    def last(self, steps: LastSteps) -> Iterator[None]:
        """Measure the two steps that run in this block; they share their seconds among their tasks themselves."""
        pipeline = steps.tasks[0].pipeline.spec.name
        self._heartbeats.move()
        try:
            yield
        finally:
            for stage, took_s in steps.took:
                self._meter.step(pipeline, stage, took_s)
                self._handoff.took(pipeline, stage, took_s)
            self._heartbeats.move()

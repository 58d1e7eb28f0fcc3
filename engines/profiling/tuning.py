"""Tries the options that a session can compute with, and chooses the fastest that may be used.

The first session is one that was not tuned. Its answers on the rows of the test are what the others are held against:

- On the CPU other options must give the same bits, because all CPUs of a fleet give the same answers.
- On a GPU the order of sums may be another one, within the tolerance of float32: all GPUs of a kind agree on the
  options, see `schemas.model_profile.ModelChoice`. Another kind of GPU computes with other algorithms anyway.
- TF32 and float16 are used only where the settings or the model's card allow them, and where the test passes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from engines.building.agreement import TOLERANCE, distance
from engines.content import Content
from engines.part import Array
from engines.ports import Device, Session
from engines.profiling.batches import batch_seconds, most_rows, repeated, rows_of, sizes_up_to
from engines.tunable import Tunable
from schemas.engine import Precision
from schemas.errors import Disposition, RigflowError
from schemas.model import ModelSpec
from schemas.model_profile import MOST_TRIALS, ComputeOptions, Trial
from schemas.settings import Settings

TEST_ROWS = 2
_WORTH_IT = 0.97  # of the seconds of a row: an option that gains less is not worth being another one
_LARGER = 0.9  # the same for a larger batch, in which a single row waits for longer
_TRIALS = 12  # shares of the given seconds
_SAME = 1.01  # the same for a CUDA graph: it saves the host's time, and answers have the same bits
_OF_THE_LIBRARY = frozenset(("precision", "layout", "search", "graph"))  # which own kernels do not heed
_PRECISION: Mapping[str, Precision] = {"": "fp32", "tf32": "fp32", "fp16": "fp16"}  # whose tolerance counts

Report = Callable[[str], None]


class Allowed(NamedTuple):
    """Which roundings of products may be used."""

    tf32: bool
    fp16: bool

    @classmethod
    def by(cls, settings: Settings, card: ModelSpec) -> "Allowed":
        """As the settings and the model's card say."""
        return cls(settings.tf32, settings.precision == "fp16" or card.precision == "float16")

    def refuses(self, precision: str) -> str:
        """Why a precision may not be used, empty if it may."""
        if precision == "tf32" and not self.tf32:
            return "not allowed: set tf32 = true"
        if precision == "fp16" and not self.fp16:
            return 'not allowed: set precision = "fp16"'
        return ""

    def __str__(self) -> str:
        return ", ".join(name for name, allowed in zip(self._fields, self, strict=True) if allowed)


@dataclass
class Tuned:
    """What came out: the options to use, all that was tried, and the seconds of batches with those options."""

    chosen: ComputeOptions
    tried: list[Trial] = field(default_factory=list)
    batch_s: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


class Tuner:
    """Tries options of one model on one device for `seconds`, about; `report` gets a line for each trial.

    `rows` are real rows for the test, else drawn ones. `everything`: options that are not allowed are measured, too.
    """

    def __init__(
        self,
        backend: Tunable,
        model: Content,
        card: ModelSpec,
        device: Device,
        shapes: Mapping[str, tuple[int, ...]],
        allowed: Allowed,
        seconds: float,
        report: Report,
        rows: Mapping[str, Array] | None = None,
        everything: bool = False,
    ) -> None:
        self._backend, self._model, self._card, self._device = backend, model, card, device
        self._shapes, self._allowed, self._report, self._everything = shapes, allowed, report, everything
        self._seconds, self._share_s = seconds, seconds / _TRIALS
        self._began_s = self._until_s = time.monotonic()
        singly = any(tensor.shape[:1] == (1,) for tensor in card.inputs)
        given = rows_of(card, shapes, 1 if singly else TEST_ROWS) if rows is None else dict(rows)
        self._rows = repeated(given, 1) if singly else given
        self._expected: dict[str, Array] = {}
        self._tuned = Tuned(backend.usual(device))

    def tune(self) -> Tuned:
        """Try one field of the options after the other. Raises ModelError, DeviceLost: the usual session fails."""
        best = self._tried(self._tuned.chosen, must=True)
        self._until_s = time.monotonic() + self._seconds  # a large model's usual session takes longer to open
        for changes in self._backend.worth_trying(self._model, self._card, self._device):
            for trial in [self._tried(options) for options in self._variants(best.options, changes)]:
                if not trial.refused and trial.row_s < _gain(trial, best) * best.row_s:
                    best = trial
        self._tuned.chosen = best.options
        self._measure(best)
        self._tuned.seconds = time.monotonic() - self._began_s
        return self._tuned

    def _variants(self, best: ComputeOptions, changes: Sequence[Mapping[str, Any]]) -> list[ComputeOptions]:
        made: list[ComputeOptions] = []
        for change in changes:
            options = best.model_copy(update=dict(change))
            pointless = self._allowed.refuses(options.precision) and not self._everything
            pointless = pointless or (best.kernels and _OF_THE_LIBRARY.issuperset(change))
            if options != best and not pointless and len(self._tuned.tried) + len(made) < MOST_TRIALS:
                made.append(options)
        return made

    def _tried(self, options: ComputeOptions, must: bool = False) -> Trial:
        """Open a session, time it, and test it."""
        if not must and time.monotonic() >= self._until_s:
            return Trial(options=options, refused="no time was left")
        try:
            trial = self._run(options)
        except RigflowError as error:
            if must or error.disposition is Disposition.FATAL:
                raise
            trial = Trial(options=options, refused=f"it fails: {error.what}")
        self._tuned.tried.append(trial)
        self._report(f"{trial.options}: {trial.statement}")
        return trial

    def _run(self, options: ComputeOptions) -> Trial:
        session = self._backend.open_with(self._model, self._card, self._device, options)
        try:
            rows = most_rows(session, self._shapes)
            if options.batch and rows == self._tuned.tried[0].rows:
                return Trial(options=options, rows=rows, refused="a batch has as many rows without it")
            seconds = self._timed(session, rows)
            refused, error = self._tested(session, options)
            return Trial(options=options, rows=rows, seconds=seconds, refused=refused, error=error)
        finally:
            session.close()

    def _timed(self, session: Session, rows: int) -> float:
        return batch_seconds(session, repeated(self._rows, rows), time.monotonic() + self._share_s)

    def _tested(self, session: Session, options: ComputeOptions) -> tuple[str, float | None]:
        """Why a session may not be used, and how far its answers are from the usual session's."""
        found = _entire(session, self._rows)
        if not self._expected:
            self._expected = found
            return "", 0.0
        worst = max(distance(found[name], array) for name, array in self._expected.items())
        error = worst if np.isfinite(worst) else None
        if why := self._allowed.refuses(options.precision):
            return why, error
        if self._device.gpu is None:
            same = all(found[name].tobytes() == array.tobytes() for name, array in self._expected.items())
            return "" if same else "its answers have other bits than another CPU's", error
        tolerance = TOLERANCE[_PRECISION[options.precision]]
        if worst <= tolerance:
            return "", error
        far = "values that are not numbers" if error is None else f"an error of {error:.2g}"
        return f"the test gives {far}, {tolerance:g} is allowed", error

    def _measure(self, best: Trial) -> None:
        """Seconds of batches of the chosen session."""
        self._tuned.batch_s[best.rows] = best.seconds
        session = self._backend.open_with(self._model, self._card, self._device, best.options)
        try:
            for rows in reversed(sizes_up_to(best.rows)):  # a graph is of the largest, and ends with the others
                if rows == 1 or time.monotonic() < self._until_s:
                    self._tuned.batch_s[rows] = self._timed(session, rows)
        finally:
            session.close()


def _gain(trial: Trial, best: Trial) -> float:
    """How many of the seconds that a row of the best trial takes a row may take in one that is better."""
    if trial.rows > best.rows:
        return _LARGER
    return _SAME if trial.options.graph and not best.options.graph else _WORTH_IT


def _entire(session: Session, rows: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of some rows, all of them, on the host."""
    if callable(reduce := getattr(session, "reduce", None)):
        reduce(())
    return {name: np.asarray(array) for name, array in session.run(rows).items()}

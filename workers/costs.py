"""What models cost on a worker's device while it works: a running median of the seconds of batches.

A worker stores what it measured where the fleet has no figures for its device, where the figures are of another driver
or version of the library, and where they differ by more than a fifth for a minute.
"""

import asyncio
import logging
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.backends.choice import backend_of
from engines.ports import Device
from engines.profiling.batches import shapes_of
from engines.profiling.models import DeviceName, device_name, model_on
from engines.profiling.store import keep_model_profile
from engines.tunable import Tunable
from pipelines.broker import Broker
from pipelines.profiles import model_profile, share_model_profile
from schemas.errors import BrokerError, RigflowError
from schemas.model import ModelSpec
from schemas.model_profile import MOST_BATCHES, NOT_TUNED, ComputeOptions, ModelOnDevice, ModelProfile
from workers.telemetry import Event, log_event

CHECK_S = 5.0
DRIFT, DRIFT_S = 0.2, 60.0  # measured against predicted, and for how long
_LEAST_RUNS, _LAST_RUNS = 8, 32  # of one number of rows, for a median

Times = Sequence[tuple[int, int, float]]  # rows, most rows and seconds of runs


class Costs:
    """The runs of one model, and what was predicted of them."""

    def __init__(self) -> None:
        self.predicted: ModelProfile | None = None
        self._runs: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_LAST_RUNS))
        self._differs_since_s: float | None = None

    def ran(self, rows: int, seconds: float) -> None:
        """Note a run."""
        if rows in self._runs or len(self._runs) < MOST_BATCHES:
            self._runs[rows].append(seconds)

    @property
    def batch_s(self) -> dict[int, float]:
        """The running median of the seconds of batches, by their rows."""
        return {rows: statistics.median(each) for rows, each in self._runs.items() if len(each) >= _LEAST_RUNS}

    def differs(self, now_s: float) -> bool:
        """Whether what was measured is unknown to the prediction, or has been another for a minute."""
        measured = self.batch_s
        if not measured:
            return False
        if self.predicted is None:
            return True
        predicted = self.predicted
        if all(abs(each / predicted.seconds_of(rows) - 1) <= DRIFT for rows, each in measured.items()):
            self._differs_since_s = None
        elif self._differs_since_s is None:
            self._differs_since_s = now_s
        return self._differs_since_s is not None and now_s - self._differs_since_s >= DRIFT_S

    def put(self, profile: ModelProfile) -> None:
        """Predict by this profile from now on."""
        self.predicted, self._differs_since_s = profile, None

    def merged(self) -> dict[int, float]:
        """Seconds of batches as measured, and of others as predicted, at most `MOST_BATCHES`."""
        measured = self.batch_s
        known = {} if self.predicted is None else dict(self.predicted.batch_s)
        merged = {**{rows: each for rows, each in known.items() if rows not in measured}, **measured}
        return dict(list(merged.items())[-MOST_BATCHES:])


class ModelCosts:
    """Collects the runs of a worker's models: `ran` by the runner; `follow` compares and stores them."""

    def __init__(self) -> None:
        self._cards: dict[str, ModelSpec] = {}
        self._costs: defaultdict[str, Costs] = defaultdict(Costs)
        self.full_only = False  # a GPU fills its batches up: those that are full alone tell their rows

    def ran(self, card: ModelSpec | None, times: Times) -> None:
        """Note runs of a model."""
        if card is None or not times:
            return
        identity = self._identity(card)
        for rows, room, seconds in times:
            if rows == room or not self.full_only:
                self._costs[identity].ran(rows, seconds)

    def _identity(self, card: ModelSpec) -> str:
        """The identity of a card, which is hashed once: that takes longer than all else that is noted of a run."""
        known = next((identity for identity, each in self._cards.items() if each is card), None)
        if known is None:
            self._cards[known := card.identity] = card
        return known

    def facts(self) -> list[dict[str, object]]:
        """For the status: of each model the rows and milliseconds of its largest batch, measured and predicted."""
        made: list[dict[str, object]] = []
        for identity, costs in self._costs.items():
            if measured := costs.batch_s:
                rows = max(measured)
                expected = costs.predicted.seconds_of(rows) if costs.predicted else 0.0
                facts = {"model": self._cards[identity].name, "rows": rows, "batch_s": measured[rows]}
                made.append(facts | {"predicted_s": expected})
        return made

    async def follow(
        self,
        broker: Broker,
        cache: Path,
        device: Device,
        chosen: Mapping[str, ComputeOptions],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Compare what was measured with what the fleet knows, and store it where that differs, until cancelled."""
        self.full_only = device.gpu is not None
        name = await asyncio.to_thread(device_name, device)
        store = _Store(broker, cache, name, chosen)
        while True:
            await asyncio.sleep(CHECK_S)
            for identity, costs in list(self._costs.items()):
                with suppress(BrokerError, OSError):  # it is tried again
                    await store.check(self._cards[identity], costs, clock())


class _Store:
    """Loads predictions and stores profiles of a worker's device."""

    def __init__(self, broker: Broker, cache: Path, name: DeviceName, chosen: Mapping[str, ComputeOptions]) -> None:
        self._broker, self._cache, self._name, self._chosen = broker, cache, name, chosen
        self._known: dict[str, tuple[ModelOnDevice, str] | None] = {}

    async def check(self, card: ModelSpec, costs: Costs, now_s: float) -> None:
        """Store what a model costs if that is news. Raises BrokerError, OSError."""
        identity = card.identity
        if identity not in self._known:
            self._known[identity] = found = self._found(card)
            if found is not None:
                await self._predict(costs, *found)
        known = self._known[identity]
        if known is None or not costs.differs(now_s):
            return
        what, library = known
        before, measured = costs.predicted, costs.batch_s
        profile = ModelProfile(
            device=self._name.id,
            device_name=self._name.kind,
            what=what,
            name=f"{card.name}@{card.version}",
            driver=self._name.driver,
            library=library,
            batch_s=costs.merged(),
            chosen=self._chosen.get(identity, NOT_TUNED),
            tried=() if before is None else before.tried,
            source="work",
            measured_s=time.time(),
        )
        await asyncio.to_thread(keep_model_profile, self._cache, profile)
        await share_model_profile(self._broker, profile)
        costs.put(profile)
        _report(card, before, measured)

    def _found(self, card: ModelSpec) -> tuple[ModelOnDevice, str] | None:
        """What the model's costs are known by, and the library's version; None where its media decides the sizes."""
        try:
            backend = backend_of(card, self._broker.settings)
            library = backend.library() if isinstance(backend, Tunable) else ""
            return model_on(card, backend.name, shapes_of(card, {})), library
        except RigflowError:
            return None

    async def _predict(self, costs: Costs, what: ModelOnDevice, library: str) -> None:
        profile = await model_profile(self._broker, self._name.id, what)
        if profile is not None and (profile.driver, profile.library) == (self._name.driver, library):
            costs.put(profile)


def _report(card: ModelSpec, before: ModelProfile | None, measured: Mapping[int, float]) -> None:
    rows = max(measured)
    now = f"{1000 * measured[rows]:.3g} ms for a batch of {rows}"
    was = "" if before is None else f", {1000 * before.seconds_of(rows):.3g} ms were predicted"
    facts: dict[str, str | int | float | bool] = {"model": card.name, "rows": rows, "seconds": measured[rows]}
    log_event(Event("model_cost", f"model {card.name} takes {now}{was}", logging.INFO, facts))

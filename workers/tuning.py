"""The options that a worker computes a model with: those of its kind of device, tried once in the whole fleet."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from engines.content import Content
from engines.ports import Device
from engines.profiling.apart import Task, tune_apart
from engines.profiling.batches import shapes_of
from engines.profiling.models import choice_of, device_name, model_on, profile_of
from engines.profiling.store import keep_model_profile, one_at_a_time
from engines.profiling.tuning import Allowed, Tuned
from engines.tunable import Tunable
from pipelines.broker import Broker
from pipelines.profiles import agreed_choice, known_choice, share_model_profile
from schemas.errors import ModelError, UsageError
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions, ModelChoice
from workers.telemetry import Event, log_event

Shapes = Mapping[str, tuple[int, ...]]


class ModelTuning:
    """Finds the options of models on a worker's device.

    Devices of one kind, with the same settings and version of the library, compute a model with the same options, which
    the broker keeps: equal devices give equal answers. The first GPU of a kind tries them, for `tuning_s` at most. A
    CPU tries nothing by itself: `rigflow profile MODEL` does.
    """

    def __init__(self, broker: Broker, cache: Path, device: Device) -> None:
        self._broker = broker
        self._cache = cache
        self._device = device
        self._settings = broker.settings
        self.chosen: dict[str, ComputeOptions] = {}  # by the identity of the model

    async def options(self, card: ModelSpec, model: Content, backend: Tunable) -> ComputeOptions:
        """The options to compute a model with. Raises ModelError, DeviceLost, BrokerError."""
        options = self.chosen[card.identity] = await self._options(card, model, backend)
        return options

    async def _options(self, card: ModelSpec, model: Content, backend: Tunable) -> ComputeOptions:
        usual = backend.usual(self._device)
        try:
            shapes = shapes_of(card, {})
        except UsageError:  # sizes that the media decides, or a state
            return usual
        known = await self._known(card, backend, shapes)
        if known is not None or self._device.gpu is None or not self._settings.tuning_s:
            return known or usual
        with ExitStack() as stack:
            lock = one_at_a_time(self._cache, device_name(self._device).id)
            await asyncio.to_thread(stack.enter_context, lock)
            known = await self._known(card, backend, shapes)  # another worker of this machine was first
            return known or await self._tried(card, model, backend, shapes)

    async def _known(self, card: ModelSpec, backend: Tunable, shapes: Shapes) -> ComputeOptions | None:
        """The options that this kind of device agreed on."""
        basis = self._choice(Tuned(backend.usual(self._device)), card, backend, shapes)
        choice = await known_choice(self._broker, basis.key)
        if choice is None:
            return None
        facts = {"model": card.name, "options": str(choice.options)}
        log_event(Event("tuned", f"model {card.name} computes with {choice.options}", logging.INFO, facts))
        return choice.options

    async def _tried(self, card: ModelSpec, model: Content, backend: Tunable, shapes: Shapes) -> ComputeOptions:
        name, seconds = device_name(self._device), self._settings.tuning_s

        def report(line: str) -> None:
            text = f"model {card.name} on {name.kind}: {line}"
            log_event(Event("tuning", text, logging.INFO, {"model": card.name}))

        report(f"options are tried for up to {seconds:g} s")
        task = Task(model, card, self._device.name, self._settings, shapes, seconds)
        try:
            tuned = await asyncio.to_thread(tune_apart, task, report)
        except ModelError as error:
            usual = backend.usual(self._device)
            event = Event("tuning_failed", f"model {card.name} computes with {usual}: {error}")
            log_event(event)
            return usual
        agreed = await agreed_choice(self._broker, self._choice(tuned, card, backend, shapes))
        if agreed.options == tuned.chosen:
            what = model_on(card, backend.name, shapes)
            profile = profile_of(tuned, card, what, name, backend.library())
            await asyncio.to_thread(keep_model_profile, self._cache, profile)
            await share_model_profile(self._broker, profile)
        report(f"{agreed.options} from now on, after {tuned.seconds:.0f} s")
        return agreed.options

    def _choice(self, tuned: Tuned, card: ModelSpec, backend: Tunable, shapes: Shapes) -> ModelChoice:
        name, allowed = device_name(self._device), Allowed.by(self._settings, card)
        return choice_of(tuned, model_on(card, backend.name, shapes), name, backend.library(), allowed)

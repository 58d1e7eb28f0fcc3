"""What `rigflow profile MODEL` does: tries a model's options on devices, and measures the seconds of its batches."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.interrupts import run_async
from cli.text import cell, cells, stdout
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.content import Content
    from schemas.model import ModelSpec
    from schemas.model_profile import ModelChoice, ModelProfile
    from schemas.settings import Settings


def measure_models(
    models: Sequence[str],
    devices: Sequence[str],
    settings: "Settings",
    seconds: float,
    dims: Sequence[str],
    media: Path | None,
    again: bool,
    report: "Callable[[str, str], None]",
) -> "list[ModelProfile]":
    """Profiles of each model on each device; kept on this machine, and with a broker in the fleet.

    Raises UsageError, ModelError, MediaError, BrokerError.
    """
    found = []
    for name in models:
        card, content = _model(name)
        rows = _rows(card, content, media) if media is not None else None
        for device in devices:
            profile, choice = _measure(
                card, content, device, settings, seconds, _dims(dims), rows, partial(report, device)
            )
            if settings.nats:
                run_async(_share(settings, profile, choice, again))
            found.append(profile)
    return found


def _model(name: str) -> "tuple[ModelSpec, Content]":
    from engines.models.catalogue import builtin_model, builtin_models, load_model, own_model

    if name.endswith(".onnx"):
        return load_model(Path(name))
    return builtin_model(name) if name in builtin_models() else own_model(name)


def _rows(card: "ModelSpec", content: "Content", media: Path) -> Any:
    """Rows of a user's media for the test."""
    from workers.calibration import calibration_rows, pipeline_of

    batches = calibration_rows(pipeline_of(card, [media]), {card.name: (card, content)}, card.name, [media], rows=8)
    return batches[0]


def _dims(given: Sequence[str]) -> dict[str, int]:
    from workers.building import parse_ranges

    return {name: best for name, (_, best, _) in parse_ranges(given).items()}


def _measure(
    card: "ModelSpec",
    content: "Content",
    device: str,
    settings: "Settings",
    seconds: float,
    dims: Mapping[str, int],
    rows: Any,
    report: "Callable[[str], None]",
) -> "tuple[ModelProfile, ModelChoice]":
    from engines.backends.choice import backend_of, check_backend
    from engines.device import open_device
    from engines.profiling.apart import Task, tune_apart
    from engines.profiling.batches import shapes_of
    from engines.profiling.models import choice_of, device_name, model_on, profile_of
    from engines.profiling.store import keep_model_profile, one_at_a_time
    from engines.profiling.tuning import Allowed
    from engines.tunable import Tunable

    check_backend(card, settings)
    backend = backend_of(card, settings)
    shapes = shapes_of(card, dims)
    place = open_device(device, settings, settings.cache_folder)
    try:
        if why := backend.refuses(place):
            raise UsageError(f"model {card.name} on {device}: {why}", "name another device")
        if not isinstance(backend, Tunable):
            raise UsageError(
                f"model {card.name}: the backend {backend.name} has no options to try", "set backend = onnxruntime"
            )
        name, allowed = device_name(place), Allowed.by(settings, card)
        with one_at_a_time(settings.cache_folder, name.id):
            task = Task(content, card, device, settings, shapes, seconds, rows, everything=True)
            tuned = tune_apart(task, report)
        what, library = model_on(card, backend.name, shapes), backend.library()
        profile = profile_of(tuned, card, what, name, library)
        keep_model_profile(settings.cache_folder, profile)
        return profile, choice_of(tuned, what, name, library, allowed)
    finally:
        place.close()


async def _share(settings: "Settings", profile: "ModelProfile", choice: "ModelChoice", again: bool) -> None:
    from cli.text import warn
    from pipelines.broker import Broker
    from pipelines.profiles import agreed_choice, share_model_profile
    from pipelines.topology import ensure_topology

    async with Broker.connected(settings, name="rigflow-profile") as broker:
        await ensure_topology(broker, settings, [])
        agreed = await agreed_choice(broker, choice, again)
        if agreed.options == profile.chosen:
            await share_model_profile(broker, profile)
        else:
            warn(f"the fleet computes {profile.name} on such a device with {agreed.options}: --again replaces that")


def show_models(profiles: "Sequence[ModelProfile]") -> None:
    """The chosen options, the seconds of batches, and what was tried, under model and device."""
    from cli.tables import paragraphs

    for number, each in enumerate(profiles):
        rows = paragraphs((cell(subject, "bold"), statement) for subject, statement in each.rows())
        title = cells((f"{each.name}  ", "bold"), (f"on {each.device_name}, {each.device}", ""))
        stdout().print(*([""] if number else []), title, rows, sep="\n")

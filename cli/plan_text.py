"""How `rigflow plan` shows a forecast: as tables and sentences, and as json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.text import cell, one_line, say_sentence, stdout
from schemas.text import rate as number
from schemas.text import size

if TYPE_CHECKING:
    from engines.workload import MediaFacts
    from placement.costs import Work
    from placement.fleet import Fleet
    from placement.forecast import Forecast, StageForecast
    from schemas.jobs import Manifest

_LEAST_SHARE = 0.01  # of a segment's seconds: what takes less is not shown
_UNITS = {
    "compute": "arithmetic",
    "link": "PCIe link",
    "pieces": "decoder threads",
    "thread": "computing thread",
}


def show(
    name: str,
    facts: "MediaFacts",
    fleet: "Fleet",
    work: "Work",
    predicted: "Forecast",
    manifest: "Manifest | None",
    why: bool,
) -> None:
    """Print a forecast for people."""
    media = facts.media
    pixels = f" of {media.codec} {media.width}x{media.height}" if media.width else ""
    say_sentence(
        f"{work.pipeline}, {name}: {count(work.pieces, 'segment')} of {size(work.piece_bytes)}, "
        f"{facts.frames:,.0f} frames{pixels}"
    )
    stdout().print(_devices(fleet, predicted) if not why else _stages(work, predicted))
    if not predicted.rate:
        say_sentence("No device can do some stage: nothing would end.")
        return
    say_sentence(_speed(work, predicted))
    say_sentence(f"Bottleneck: {bottleneck_in_words(predicted.bottleneck) or 'none is full'}.")
    if why:
        for reason, devices in _reasons(predicted).items():
            say_sentence(f"{devices}: {reason}.")
        for gain in predicted.gains:
            say_sentence(f"With {gain.what}: {gain.times:.2f} x.")
        if predicted.estimated:
            say_sentence("Figures with ~ are estimated; `rigflow profile` and work on the fleet measure them.")
    if manifest is not None:
        _show_job(work, predicted, manifest)


def count(amount: int, what: str) -> str:
    """`1 segment`, `2 segments`."""
    return f"{amount:,} {what}{'' if amount == 1 else 's'}"


def bottleneck_in_words(parts: Sequence[str]) -> str:
    """Name the parts that are fully used; threads and segments of a CPU are left out where its cores are named."""
    full = [part for part in parts if not _of_full_cores(part, parts)]
    return ", ".join(map(part_in_words, full))


def _of_full_cores(part: str, parts: Sequence[str]) -> bool:
    unit, _, of = part.partition(" ")
    return unit in ("pieces", "thread") and of.endswith("-cpu") and f"cores {of.removesuffix('-cpu')}" in parts


def part_in_words(part: str) -> str:
    """A part of the fleet, `decoder rig1-0`, as people say it."""
    unit, _, of = part.partition(" ")
    if unit in ("cores", "network"):
        return f"the {'cores' if unit == 'cores' else 'network link'} of {of}"
    return f"the {_UNITS.get(unit, unit)} of {of}"


def _speed(work: "Work", predicted: "Forecast") -> str:
    frames = predicted.rate * (work.frames or 1.0)
    moved = f" {predicted.moved:.0%} of the segments move to another rig." if predicted.moved else ""
    return (
        f"Predicted: {seconds(predicted.finish_s)} in all, the first segment after {seconds(predicted.first_s)}, "
        f"{number(frames)} frames/s.{moved}"
    )


def _devices(fleet: "Fleet", predicted: "Forecast") -> Any:
    from cli.tables import list_of

    titles = ("device", "profile", "stages", "takes from", "segments")
    rows: list[list[Any]] = []
    for _, device in fleet.places():
        role = predicted.placement.roles[device.name]
        shares = [place.share for place in predicted.stages if place.device == device.name]
        stages = tuple(role.runs) or "none", tuple(role.takes)  # whole, however narrow the window is
        names = one_line(device.name), one_line(device.profile.name)
        rows.append([*names, *stages, f"{max(shares, default=0.0):.0%}"])
    return list_of(titles, rows, left=4, named=("device",))


def _stages(work: "Work", predicted: "Forecast") -> Any:
    """A row for each stage and each kind of device: equal devices have equal costs. As wide as a usual window."""
    from cli.tables import list_of

    titles = ("stage", "device", "a segment", "of it", "share", "gives")
    rows: dict[tuple[object, ...], list[StageForecast]] = {}
    for place in predicted.stages:
        rows.setdefault((place.stage, _shown_cost(place)), []).append(place)
    gives = {stage.name: stage.gives_bytes for stage in work.stages}
    made = [_stage_row(places, gives) for places in rows.values()]
    return list_of(titles, made, left=2, named=titles[:2])


def _stage_row(places: "Sequence[StageForecast]", gives: Mapping[str, float]) -> list[Any]:
    first = places[0]
    device = " and ".join([first.device, *_more([place.device for place in places])])
    share = f"{sum(place.share for place in places):.0%}"
    return [one_line(first.stage), one_line(device), *_shown_cost(first), share, size(gives[first.stage])]


def _shown_cost(place: "StageForecast") -> tuple[str, str]:
    """What a segment takes, and the two units that take most of that, by their shares."""
    cost, total_s = place.cost, sum(place.cost.units.values())
    units = sorted(cost.units.items(), key=lambda unit: -unit[1])[:2]
    shares = [f"{unit} {taken / total_s:.0%}" for unit, taken in units if taken >= _LEAST_SHARE * total_s > 0.0]
    return f"{'~' if cost.estimated else ''}{seconds(cost.seconds)}", ", ".join(shares)


def seconds(taken: float) -> str:
    """Seconds to three digits, or milliseconds; those below a hundredth are not told apart."""
    if taken >= 100.0:
        return f"{taken:,.0f} s"
    if 0.0 < taken < 1e-5:
        return "0.01 ms"
    return f"{taken:.3g} s" if taken >= 1.0 else f"{1000 * taken:.3g} ms" if taken >= 1e-3 else f"{1000 * taken:.2f} ms"


def _reasons(predicted: "Forecast") -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for device, reason in predicted.placement.why.items():
        found.setdefault(reason, []).append(device)
    return {reason: " and ".join([devices[0], *_more(devices)]) for reason, devices in found.items()}


def _more(devices: Sequence[str]) -> list[str]:
    return [f"{len(devices) - 1} more"] if len(devices) > 1 else []


def _show_job(work: "Work", predicted: "Forecast", manifest: "Manifest") -> None:
    """Predicted beside measured, of a job that is over."""
    from cli.tables import list_of

    measured = measured_of(manifest)
    titles = (f"job {manifest.job.id}", "predicted", "measured", "by predicted")
    rows = [
        _beside("seconds", predicted.finish_s, measured["seconds"]),
        _beside("segments", float(work.pieces), measured["segments"]),
    ]
    if measured["device_seconds"]:  # known once the results were collected
        rows.append(_beside("device-seconds", device_seconds(work, predicted), measured["device_seconds"]))
    stdout().print(list_of(titles, rows, left=1))


def _beside(what: str, predicted: float, measured: float) -> list[Any]:
    ratio = f"{measured / predicted:.2f}" if predicted else ""
    return [cell(what), f"{predicted:,.1f}", f"{measured:,.1f}", ratio]


def measured_of(manifest: "Manifest") -> dict[str, float]:
    """What a job took: seconds from its beginning to its end, segments, and seconds of devices."""
    return {
        "seconds": max(0.0, (manifest.ended_s or manifest.updated_s) - manifest.created_s),
        "segments": float(manifest.segments_done),
        "device_seconds": manifest.computed_s,
    }


def device_seconds(work: "Work", predicted: "Forecast") -> float:
    """Seconds of devices that a job takes, by the shares that the forecast gives each."""
    return work.pieces * sum(place.cost.seconds * place.share for place in predicted.stages)


def answer_of(fleet: "Fleet", work: "Work", predicted: "Forecast", manifest: "Manifest | None") -> dict[str, Any]:
    """A forecast for programs."""
    return {
        "pipeline": work.pipeline,
        "segments": work.pieces,
        "segment_bytes": work.piece_bytes,
        "rigs": [{"rig": rig.name, "devices": [device.name for device in rig.devices]} for rig in fleet.rigs],
        "roles": {
            name: asdict(role) | {"why": predicted.placement.why[name]}
            for name, role in predicted.placement.roles.items()
        },
        "stages": [asdict(place) | {"seconds": place.cost.seconds} for place in predicted.stages],
        "gives_bytes": {stage.name: stage.gives_bytes for stage in work.stages},
        "segments_per_s": predicted.rate,
        "frames_per_s": predicted.rate * work.frames,
        "first_s": predicted.first_s,
        "finish_s": predicted.finish_s,
        "device_seconds": device_seconds(work, predicted),
        "busy": dict(predicted.busy),
        "bottleneck": list(predicted.bottleneck),
        "moved": predicted.moved,
        "gains": [asdict(gain) for gain in predicted.gains],
        "estimated": predicted.estimated,
        "measured": measured_of(manifest) if manifest is not None else None,
    }

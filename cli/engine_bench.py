"""`rigflow engine bench`: how fast a model answers, batch by batch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Json, SettingsFile, ends_well, settings_from
from cli.text import say, say_json, stdout
from schemas.errors import ExitCode, OutputError, UsageError
from schemas.text import size

if TYPE_CHECKING:
    from engines.building.bench import Point
    from engines.building.store import EngineStore
    from schemas.engine import EngineSpec
    from schemas.model import ModelSpec
    from schemas.settings import Settings


@ends_well
def bench(
    model: Annotated[str, typer.Argument(help="An ONNX file, or the name of a model added or built in.")],
    engine: Annotated[str, typer.Option(help="Measure this engine, on the GPU of --device.", metavar="KEY")] = "",
    device: Annotated[str | None, typer.Option(help="cpu, cuda:INDEX or cuda:UUID.")] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes in rows.", metavar="N,N...")] = "1,2,4,8,16,32",
    seconds: Annotated[float, typer.Option(help="Seconds that each batch size is run.", min=0.01)] = 2.0,
    latency_ms: Annotated[
        float, typer.Option(help="Highest 99th percentile that the best batch may have.", metavar="MS", min=0)
    ] = 0.0,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of a free dimension but the batch.", metavar="NAME=SIZE")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as json, too.", metavar="FILE")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them, as .png or .svg.", metavar="FILE")] = None,
    as_json: Json = False,
    settings_file: SettingsFile = None,
) -> ExitCode:
    """Measure how fast a model answers.

    By ONNX Runtime on one core of the CPU or on a GPU, or as an engine on a GPU. Latency is from the call to the
    answer on the host.

    Example: rigflow engine bench fingerprint --dim T=16 --plot rates.png
    """
    from engines.building import bench as measure

    if plot is not None:
        measure.check_plot()
    settings = settings_from(settings_file, device=device)
    points, figures = _measured(settings, model, engine, _sizes(batches), dim or [], seconds)
    best = measure.best(points, latency_ms)
    figures |= {
        "latency_ms": latency_ms or None,
        "best_batch": best.batch if best else None,
        "points": [point.as_json() for point in points],
    }
    if plot is not None:
        measure.plot(points, ", ".join(str(figures[field]) for field in ("model", "backend", "device")), plot)
    if out is not None:
        try:
            out.write_text(json.dumps(figures, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {out}: {error.strerror}", "check the path") from error
    if as_json:
        say_json(figures)
        return ExitCode.OK
    stdout().print(_rows(points))
    bound = f" within {latency_ms:g} ms" if latency_ms else ""
    say(f"best batch{bound}: {best.batch}" if best else f"no batch answers{bound}")
    return ExitCode.OK


def _measured(
    settings: "Settings", model: str, engine: str, sizes: list[int], dims: list[str], seconds: float
) -> "tuple[list[Point], dict[str, object]]":
    """A point for each batch size, and a description of what was measured. Raises UsageError, ModelError."""
    from engines.backends.choice import EVERYWHERE
    from engines.building import bench as measure
    from engines.building.engine import profiles_of
    from engines.device import open_device
    from engines.registry import load
    from workers.building import parse_ranges
    from workers.engines import engine_store, find_model, ready

    spec, body = find_model(model)
    fixed = [tensor.name for tensor in spec.inputs if tensor.shape and tensor.shape[0] == 1]
    if fixed and sizes != [1]:
        raise UsageError(f"model `{spec.name}` takes one row at a time", "say --batches 1")
    store = engine_store(settings.cache_folder)
    chosen = _engine_of(store, engine, spec) if engine else None
    if chosen:
        profiles, sizes = chosen.basis.profiles, [each for each in sizes if each <= chosen.rows] or [chosen.rows]
    else:
        profiles = profiles_of(spec, parse_ranges(dims))
    place = open_device(settings.device, settings, settings.cache_folder)
    used = place.gpu.used_bytes if place.gpu is not None else measure.resident_bytes
    measure.forget_peak()
    before = used()
    backend = chosen.basis.backend if chosen else spec.backend or EVERYWHERE
    runs = load("backends", backend)(settings)
    if why := runs.refuses(place):
        raise UsageError(f"{why}, and this is {settings.device}", "say --device cuda:0")
    session = runs.open(body, spec, place, ready(store, chosen, body) if chosen else None)
    try:
        points = measure.sweep(session, profiles, sizes, seconds, lambda: max(0, used() - before))
    finally:
        session.close()
        place.close()
    version = f" {chosen.basis.version}" if chosen else ", one thread" if place.gpu is None else ""
    return points, {
        "model": f"{spec.name}@{spec.version}",
        "sha256": spec.sha256,
        "device": settings.device,
        "backend": backend + version,
        "engine": chosen.key if chosen else None,
    }


def _engine_of(store: "EngineStore", key: str, spec: "ModelSpec") -> "EngineSpec":
    """The engine with this key. Raises UsageError if it is not an engine of this model."""
    found = store.find(key)
    if found.basis.model_sha256 != spec.sha256:
        raise UsageError(f"engine {key} is of {found.model}, not of this {spec.name}", "see `rigflow engine list`")
    return found


def _rows(points: "list[Point]") -> object:
    from cli.tables import list_of

    rows = []
    for point in points:
        times = (point.mean_ms, point.p50_ms, point.p90_ms, point.p99_ms)
        memory = size(point.memory_bytes) if point.memory_bytes else "-"
        rows.append([str(point.batch), f"{point.rows_per_s:.0f}", *(f"{each:.2f}" for each in times), memory])
    return list_of(("batch", "rows/s", "mean ms", "p50 ms", "p90 ms", "p99 ms", "memory"), rows)


def _sizes(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"--batches {text} is no list of sizes", "say 1,2,4,8")
    return sorted({int(word) for word in words})

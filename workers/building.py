"""An order for engines as a person gives it, and carrying it out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.building.convert import Batch
from engines.building.engine import Range, Recipe, obtain
from engines.building.gpus import COMMON, advised, number_of, parse_targets, target_of
from engines.building.store import EngineStore
from engines.machine import gpus
from engines.ports import Compiler
from schemas.engine import EngineSpec, Precision
from schemas.errors import UsageError
from schemas.model import ModelSpec

PRECISIONS: Mapping[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class Order:
    """What `rigflow engine build` was asked for; `precision` None is `auto`, by GPU."""

    spec: ModelSpec
    model: bytes
    compiler: Compiler
    targets: tuple[str, ...]
    precision: Precision | None
    ranges: Mapping[str, Range]
    calibrate: tuple[Path, ...] = ()
    pipeline: str = ""
    anyway: bool = False
    again: bool = False


def build_all(order: Order, store: EngineStore, warn: Callable[[str], None]) -> Iterator[tuple[EngineSpec, bool]]:
    """Each engine of an order as it is there, and whether it was built for it.

    Every precision is converted once, and everything that can be refused at once is, before the first is built.
    Raises UsageError, ModelError, MediaError, StoreError.
    """
    if order.spec.backend not in (None, order.compiler.name):
        raise UsageError(f"model `{order.spec.name}` runs by {order.spec.backend} alone", "its card says so")
    groups = _groups(order)
    for targets, precision in groups:
        for target in targets:
            warning = order.compiler.check_precision(target, precision, order.anyway)
            if warning:
                warn(warning)
    recipes: dict[Precision, Recipe] = {}
    for _, precision in groups:
        if precision not in recipes:
            rows = _calibration(order) if precision == "int8" or order.calibrate else ()
            recipes[precision] = Recipe.make(order.spec, order.model, precision, order.ranges, rows)
    device = _device() if order.compiler.needs_gpu else ""
    for targets, precision in groups:
        recipe = recipes[precision]
        yield obtain(store, recipe, recipe.basis(order.compiler.name, targets, device), order.again)


def _groups(order: Order) -> list[tuple[tuple[str, ...], Precision]]:
    """The GPUs of each plan and its precision."""
    found: list[tuple[tuple[str, ...], Precision]] = []
    for targets in order.compiler.plans_for(order.targets):
        by_precision: dict[Precision, list[str]] = {}
        for target in targets:
            by_precision.setdefault(order.precision or advised(target), []).append(target)
        found += [(tuple(same), precision) for precision, same in by_precision.items()]
    return found


def _calibration(order: Order) -> Sequence[Batch]:
    if not order.calibrate:
        raise UsageError("int8 needs media of yours to see the model's ranges on", "add --calibrate FILE")
    from workers.calibration import calibration_rows, pipeline_of
    from workers.definitions import find_models, find_pipeline

    name = order.spec.name
    if not order.pipeline:
        spec = pipeline_of(order.spec, order.calibrate)
        return calibration_rows(spec, {name: (order.spec, order.model)}, name, order.calibrate)
    spec, folder = find_pipeline(order.pipeline)
    used = [model for model in spec.model_names.values() if model.partition("@")[0] == name]
    if not used:
        raise UsageError(f"pipeline {spec.name} does not use model {name}", "name the pipeline that does")
    models = {**find_models(spec, folder), used[0]: (order.spec, order.model)}
    return calibration_rows(spec, models, used[0], order.calibrate)


def parse_precision(text: str) -> Precision | None:
    """A precision; None for `auto`. Raises UsageError."""
    if text != "auto" and text not in PRECISIONS:
        raise UsageError(f"no precision {text}", f"there are auto, {', '.join(PRECISIONS)}")
    return PRECISIONS.get(text)


def parse_ranges(given: Sequence[str]) -> dict[str, Range]:
    """`N=1:8:32` -> `{"N": (1, 8, 32)}`; `N=8` means 8 and nothing else. Raises UsageError."""
    ranges: dict[str, Range] = {}
    for text in given:
        name, _, sizes = text.partition("=")
        numbers = sizes.split(":")
        if not name or len(numbers) not in (1, 3) or not all(number.isdigit() for number in numbers):
            raise UsageError(f"--dim {text} is no range", "say NAME=SMALLEST:BEST:LARGEST, as in N=1:8:32")
        low, *rest = map(int, numbers)
        ranges[name] = (low, rest[0], rest[1]) if rest else (low, low, low)
    return ranges


def chosen_targets(text: str, compiler: Compiler) -> tuple[str, ...]:
    """The GPUs to build for: those named, or those of this machine. Raises UsageError."""
    here = tuple(sorted({target_of(gpu.capability) for gpu in gpus()}, key=number_of))
    if compiler.needs_gpu:
        named = parse_targets(text) if text else here[:1]
        if not here or any(target not in here for target in named):
            raise UsageError(
                f"{compiler.name} builds only for the GPU it runs on, and here is {', '.join(here) or 'none'}",
                "run it where that GPU is, or build with --backend tensorrt_rtx",
            )
        return named
    if text:
        return parse_targets(text)
    if not here:
        raise UsageError("no GPU is here to build for", f"say --for {','.join(COMMON)}, or all")
    compiler.plans_for(here)  # raises for one that it cannot compile for
    return here


def _device() -> str:
    return gpus()[0].name

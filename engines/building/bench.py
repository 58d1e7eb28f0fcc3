"""Measures the speed of a session for each batch size: latency, throughput and memory."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from engines.extras import install_extra
from engines.ports import Session
from engines.probe_rows import probe_rows
from schemas.engine import Profile
from schemas.errors import OutputError, UsageError

LEAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class Point:
    """One measured batch size: times of single runs from the call to the outputs on the host."""

    batch: int
    runs: int
    rows_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    memory_bytes: int  # the memory that the model added; 0: unknown

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)


def sweep(
    session: Session,
    profiles: Sequence[Profile],
    batches: Sequence[int],
    seconds: float,
    memory_bytes: Callable[[], int],
    report: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Run each batch size for `seconds`, after one run that is not counted. Raises as `Session.run` does.

    Rows are those of the engines' own test; throughput is rows over the time from the first call to the last outputs.
    """
    points = []
    for batch in batches:
        inputs = probe_rows(session.spec, profiles, batch)
        session.run(inputs)
        times: list[float] = []
        began_s = time.perf_counter()
        while len(times) < LEAST_RUNS or time.perf_counter() - began_s < seconds:
            started_s = time.perf_counter()
            session.run(inputs)
            times.append(time.perf_counter() - started_s)
        took_s = time.perf_counter() - began_s
        p50, p90, p99 = (float(np.percentile(times, share)) * 1e3 for share in (50, 90, 99))
        mean_ms = float(np.mean(times)) * 1e3
        point = Point(batch, len(times), batch * len(times) / took_s, mean_ms, p50, p90, p99, memory_bytes())
        points.append(point)
        report(point)
    return points


def best(points: Sequence[Point], latency_ms: float) -> Point | None:
    """Return the point of most rows a second whose 99th percentile is within a bound (0: none), or None."""
    within = [point for point in points if not latency_ms or point.p99_ms <= latency_ms]
    return max(within, key=lambda point: point.rows_per_s, default=None)


def resident_bytes() -> int:
    """Return the peak memory of this process since its start or the last `forget_peak`; 0 if it is unknown."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def forget_peak() -> None:
    """Reset `resident_bytes`, if the kernel allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def check_plot() -> None:
    """Raise UsageError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise UsageError("a plot needs matplotlib", f"{install_extra('plot')}, or leave --plot out")


def plot(points: Sequence[Point], title: str, path: Path) -> None:
    """Draw throughput and latency over the batch size. Raises UsageError without matplotlib."""
    check_plot()
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    batches = [point.batch for point in points]
    left.plot(batches, [point.rows_per_s for point in points], "o-")
    left.set(xlabel="batch (rows)", ylabel="rows/s", title="throughput", ylim=(0, None))
    for share in ("p50_ms", "p90_ms", "p99_ms"):
        right.plot(batches, [getattr(point, share) for point in points], "o-", label=share.removesuffix("_ms"))
    right.set(xlabel="batch (rows)", ylabel="ms", title="latency of a batch", ylim=(0, None))
    right.legend()
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {error}", "give a path that ends in .png or .svg") from error
    finally:
        pyplot.close(figure)

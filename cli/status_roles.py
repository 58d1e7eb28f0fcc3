"""The lines of `rigflow status` about placement: which worker does what, where not all do everything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.text import cells

if TYPE_CHECKING:
    from rich.console import RenderableType


def placed(workers: Sequence[Mapping[str, Any]]) -> "list[RenderableType]":
    """A line for each pipeline and role, with the workers that have it; none where all do everything."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for worker in workers:
        for pipeline, role in sorted(worker.get("roles", {}).items()):
            runs = " ".join(role["runs"]) or "nothing"
            found.setdefault((pipeline, runs, role.get("why", "")), []).append(worker["worker"])
    different = Counter(pipeline for pipeline, _, _ in found)
    return [
        cells((f"placed: {pipeline} ", "bold"), (f"{', '.join(names)} {_do(names)} {runs} ", ""), (f"({why})", "dim"))
        for (pipeline, runs, why), names in sorted(found.items())
        if different[pipeline] > 1
    ]


def _do(names: Sequence[str]) -> str:
    return "runs" if len(names) == 1 else "run"

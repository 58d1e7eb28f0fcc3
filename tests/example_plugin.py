"""The package of docs/extending.md, installed as an installer does it, without a network."""

import re
import socket
import sys
import tomllib
from functools import partial
from pathlib import Path

from engines import registry
from workers.forkserver import Entry
from workers.options import WorkerOptions
from workers.process import start_worker

DOCUMENT = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
PIPELINE, STACK_PIPELINE = BLOCKS["brightness.toml"], BLOCKS["stack.toml"]


def install(site: Path, version: str = "") -> None:
    """Put the package and what an installer notes of it into the folder `site`; `version`: instead of its own."""
    project = tomllib.loads(BLOCKS["pyproject.toml"])["project"]
    version = version or project["version"]
    files = {name: text for name, text in BLOCKS.items() if name.endswith(".py")}
    info = f"{project['name'].replace('-', '_')}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    files[f"{info}/entry_points.txt"] = "\n".join(
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    )
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)


def forget() -> None:
    """Forget which packages are installed, and what was imported of the example."""
    registry.load.cache_clear()
    registry._added.cache_clear()
    for module in [name for name in sys.modules if name.split(".")[0] in ("rigflow_example", "example_plugin")]:
        del sys.modules[module]


def worker_with(*sites: Path) -> Entry:
    """What a worker process runs that has the example from these folders, and not from where its parent has it."""
    return partial(_start, tuple(map(str, sites)))


def _start(sites: tuple[str, ...], options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    sys.path[:] = [*sites, *(folder for folder in sys.path if not (Path(folder) / "rigflow_example").exists())]
    start_worker(options, heartbeats)

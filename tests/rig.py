"""`rigflow rig` as a process of its own, for tests: what it says, its workers, its pages."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cli import Running
from tests.fleet import Fleet
from tests.simulated import PACE


class Rig(Running):
    """`rigflow rig` with two workers, or as many as `workers` says; `stages` as its file has them."""

    def __init__(
        self,
        fleet: Fleet,
        folder: Path,
        name: str = "r",
        workers: int = 2,
        pace_ms: float = 20.0,
        stages: str = "",
        config_text: str = "",
        environment: Mapping[str, str] | None = None,
        **settings: float,
    ) -> None:
        """`config_text` is the rig's file, if not that of so many workers."""
        given = {"cache": str(folder / "cache"), "ack_wait_s": 3.0, **settings}
        file, config = folder / f"{name}.settings.toml", folder / f"{name}.toml"
        file.write_text("".join(f"{key} = {value!r}\n" for key, value in given.items()))
        of_workers = f"[[worker]]\ncount = {workers}\n" + (f"stages = {stages}\n" if stages else "")
        config.write_text(config_text or of_workers)
        where = ("--nats", fleet.settings.nats, "--settings", str(file), "--metrics", "127.0.0.1:0")
        super().__init__(
            "rig", "--name", name, "--config", str(config), *where, **{PACE: str(pace_ms), **(environment or {})}
        )
        self.name = name

    @property
    def pids(self) -> list[int]:
        """Processes of its workers now, in their order."""
        started = re.findall(r"event=started worker=\S+cpu(\d) pid=(\d+)", self.output)
        return [int(pid) for _, pid in sorted(dict(started).items())]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages."""
        found = re.search(r"metrics=(http://\S+)", self.until("event=starting"))
        assert found is not None
        try:
            with urllib.request.urlopen(found.group(1) + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert values, f"no metric {name}"
        return sum(map(float, values))

    def until_ready(self) -> None:
        eventually(lambda: self.get("/readyz")[0] == 200)


def eventually(what: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

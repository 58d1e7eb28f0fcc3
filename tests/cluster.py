"""Three real brokers on the loopback, with the configuration that deploy/nats/cluster.conf gives to production."""

import asyncio
import json
import os
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.broker import Broker
from pipelines.child import nats_server_binary, tied_to_us

CONFIG = Path(__file__).parents[1] / "deploy" / "nats" / "cluster.conf"
READY_S = 30.0


@dataclass
class Node:
    """One of the three."""

    name: str
    folder: Path
    port: int
    route_port: int
    http_port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def healthy(self) -> bool:
        """Whether all its streams and consumers are up with their leaders'."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=2) as answer:
                return json.load(answer)["status"] == "ok"
        except OSError:
            return False


class Cluster:
    """Starts three nodes, kills and restarts them; ends all of them."""

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(9)
        self.nodes = [
            Node(f"n{number}", folder / f"n{number}", *ports[3 * number : 3 * number + 3]) for number in range(3)
        ]

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def __enter__(self) -> Self:
        for node in self.nodes:
            self.start(node)
        self.until_healthy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            self.kill(node)

    def start(self, node: Node) -> None:
        """Start a node, for the first time or again."""
        node.folder.mkdir(parents=True, exist_ok=True)
        routes = ", ".join(f"nats://127.0.0.1:{other.route_port}" for other in self.nodes)
        flags = {
            "-c": CONFIG,
            "--name": node.name,
            "--addr": "127.0.0.1",
            "--port": node.port,
            "--http_port": node.http_port,
            "--cluster": f"nats://127.0.0.1:{node.route_port}",
            "--store_dir": node.folder / "store",
            "--log": node.folder / "log",
        }
        command = [nats_server_binary(), *(str(word) for flag in flags.items() for word in flag)]
        node.process = subprocess.Popen(
            tied_to_us(command),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"NATS_ROUTES": f"[{routes}]"},
        )

    def kill(self, node: Node) -> None:
        """Kill -9 a node."""
        if node.process is not None:
            node.process.kill()
            node.process.wait()

    def until_healthy(self) -> float:
        """Wait until all nodes that run are up to date; the seconds that took."""
        started = time.monotonic()
        while not all(node.healthy() for node in self.nodes if node.alive):
            assert any(node.alive for node in self.nodes), "no node started: see its log"
            assert time.monotonic() - started < READY_S, "the cluster did not come up: see its logs"
            time.sleep(0.05)
        return time.monotonic() - started

    def named(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


async def leader_of(broker: Broker, stream: str) -> str:
    """Name of the node that leads a stream."""
    while True:
        info = await broker.api(f"STREAM.INFO.{stream}")
        if leader := info["cluster"].get("leader"):
            return str(leader)
        await asyncio.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses now; routes need them before the first node runs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

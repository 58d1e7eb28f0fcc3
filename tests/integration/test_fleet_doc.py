"""The pages about a broker with roles, a machine that joins and tenants, in their order, on one machine."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest

from tests.fleet_doc import commands, is_server

ROOT = Path(__file__).parents[2]
PAGES = (
    ("operations.md", "Permissions"),
    ("install.md", "A machine joins"),
    ("tenants.md", "The operator's file"),
)
UNTIL = {"broker": "Server is ready", "rig": "event=ready", "gateway": "rigflow serves "}
# a command that serves is over when it says that it does; the others go on
HEAD = r"""
set -eo pipefail
trap 'trap - EXIT; kill -9 $(jobs -p) 2>/dev/null || true' EXIT
until_said() { for _ in $(seq 600); do grep -q "$2" "$1" && return; sleep 0.1; done; cat "$1"; exit 1; }
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def script(port: int) -> str:
    """All commands of the pages; those that serve run beside, and what a token prints goes into the next command."""
    lines = []
    for number, command in enumerate(each for page in PAGES for each in commands(*page)):
        here = command.replace("rig1:4222", f"127.0.0.1:{port}").replace(
            "--addr 0.0.0.0", f"--addr 127.0.0.1 --port {port}"
        )
        here = here.replace("rfj_mV0q...", '"$(tail -1 token)"').replace("rigflow gateway", "rigflow gateway --port 0")
        here = f"{here} | tee token" if "join add" in here else here
        if is_server(command):
            kind = re.search(r"rigflow (\w+)", command)
            assert kind is not None
            home = f"HOME=$PWD/home{number} RIGFLOW_METRICS=127.0.0.1:0 "
            lines += [f"{home}{here} > said{number} 2>&1 &", f"until_said said{number} '{UNTIL[kind[1]]}'"]
            lines += ["kill %+; wait %+ || true"] if kind[1] != "broker" else []
        else:
            lines += [f"echo {quote(f'== {command}')}", here]
    return "\n".join(lines)


@pytest.mark.slow
def test_a_fleet_of_several_machines_as_the_pages_have_it(tmp_path: Path) -> None:
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "walk.sh").write_text(f"{HEAD}{script(free_port())}\necho '== end'\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RIGFLOW_", "NKEY_"))}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    ran = subprocess.run(
        ["bash", "walk.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    steps = dict(re.findall(r"^== (.*)\n((?:(?!== ).*\n)*)", ran.stdout, re.MULTILINE))
    assert "end" in steps
    for page in PAGES:
        text = (ROOT / "docs" / page[0]).read_text()
        for command, said in re.findall(r"^\$ (rigflow tenants \w+ .*)\n(tenant .*)$", text, re.MULTILINE):
            assert steps[re.sub(r"\s+#.*$", "", command)] == f"{said}\n"
    assert re.search(r"^acme +3 +1 ", steps["rigflow tenants list"], re.MULTILINE)


def test_the_commands_can_be_parsed(tmp_path: Path) -> None:
    (tmp_path / "walk.sh").write_text(f"{HEAD}{script(1)}\n")
    assert subprocess.run(["bash", "-n", "walk.sh"], cwd=tmp_path, capture_output=True, check=False).stderr == b""
    assert sum(is_server(each) for page in PAGES for each in commands(*page)) == 5

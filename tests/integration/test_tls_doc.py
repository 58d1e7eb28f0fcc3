"""The commands of docs/tls.md in their order, as they stand but for the names and ports of the machines."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip

DOCUMENT = Path(__file__).parents[2] / "docs" / "tls.md"
TOOLS = Path(sys.executable).parent


def blocks() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="openssl and curl are not here")
def test_every_command_of_the_walk(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=60))
    clip.rename(tmp_path / "film.mp4")
    names, *rest = blocks()
    assert set(re.findall(r"(\w+)=", names)) == {"BROKER", "PORT", "GATEWAY", "HTTPS"}
    here = {"BROKER": "localhost", "PORT": free_port(), "GATEWAY": "localhost", "HTTPS": free_port()}
    first = "".join(f"export {name}={value}\n" for name, value in here.items())
    # an error ends the script, and so that nothing outlives it, what runs in the background ends with it
    head = "set -eo pipefail\ntrap 'trap - EXIT; kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n"
    marked = [f"echo '== {number}'\n{block}" for number, block in enumerate(rest)]
    (tmp_path / "walk.sh").write_text(head + first + "\n".join(marked) + "\necho '== end'\n")
    environment = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    ran = subprocess.run(
        ["bash", "walk.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    steps = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", ran.stdout, re.DOTALL | re.MULTILINE))
    assert "end" in steps
    assert "RIGFLOW_MEDIA_fingerprint" in ran.stdout, "the program's media was stored"
    assert '"fingerprint"' in ran.stdout, "the gateway has listed the pipelines"
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["film.fingerprint.npz"]
    assert "eof_received" not in ran.stderr
    assert len(re.findall(r"^rigflow: .*(CERTIFICATE_REQUIRED|is not trusted)", ran.stderr, re.MULTILINE)) == 2
    log = (tmp_path / "nats.log").read_text()
    assert "TLS handshake error" in log, "the client without a certificate was refused"
    assert "Reloaded: tls" in log
    assert (tmp_path / "tls" / "ca.key").stat().st_mode & 0o077 == 0


def test_the_commands_can_be_parsed(tmp_path: Path) -> None:
    """`make faults` runs them."""
    (tmp_path / "walk.sh").write_text("\n".join(blocks()))
    checked = subprocess.run(["bash", "-n", "walk.sh"], cwd=tmp_path, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert len(blocks()) >= 10

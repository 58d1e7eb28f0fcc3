"""Pages that a newcomer follows command by command."""

import subprocess
from pathlib import Path

import pytest

from cli.samples import draw_samples
from tests.walks import DOCS, free_port, script, walk

ENVIRONMENT = "```bash\nmake demo\n. .venv/bin/activate\n```\n"  # what is here already


@pytest.mark.parametrize("page", ["quick-start", "recipes", "coming-from"])
def test_the_commands_of_a_page_can_be_parsed(page: str, tmp_path: Path) -> None:
    """The walks below are slow; `make faults` has them."""
    program = script((DOCS / f"{page}.md").read_text(), tmp_path, {})
    checked = subprocess.run(["bash", "-n"], input=program, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert program.count("rigflow ") > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_start(tmp_path: Path) -> None:
    """Both machines are this one: rig2 has a home of its own."""
    text = (DOCS / "quick-start.md").read_text()
    assert ENVIRONMENT in text
    draw_samples(tmp_path / "demo-out")
    (tmp_path / "rig2").mkdir()
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    other = f"env -u RIGFLOW_INBOX -u RIGFLOW_CREDENTIALS HOME={tmp_path}/rig2"
    rewrite = {
        r"rig1:4222": f"127.0.0.1:{port}",
        r":4222": f":{port}",
        r"rigflow up$": f"rigflow up --port {port}",
        r"rigflow rig ": "rigflow rig --metrics 127.0.0.1:0 ",
        r"^(rigflow (publish|status|jobs|results|topology apply|keys join)|RIGFLOW_INBOX=)": rf"RIGFLOW_NATS={url} \1",
        r"(.* --join .*)rfj_\w+": rf"{other} \1$(cat {tmp_path}/*.out | grep -o '^rfj_.*')",
    }
    said = walk(text.replace(ENVIRONMENT, ""), tmp_path, rewrite)
    assert said.count("large: done, 150 frames") == 2
    assert (tmp_path / "results" / "film.scenes.png").stat().st_size > 1000
    made = [tmp_path / part / "results" / "film.upscale2x.mp4" for part in ("", "fleet")]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert "joined the fleet" in "".join(path.read_text() for path in tmp_path.glob("*.out"))

"""What the documents print below a command is what the command prints."""

import re
import shutil
from pathlib import Path

import av
import pytest

from tests.cli import rigflow, rigflow_process
from tests.clips import real_clip
from tests.walks import DOCS, blocks
from tests.weights import weights

STREET = 120  # the frame of the clip `bikes` that is the picture `street.png`
RATES = re.compile(r" +\d[\d,.]*(?=  results/)")  # frames a second, which no two runs have alike


def printed(page: str, command: str) -> tuple[list[str], str]:
    """The words of the example whose command begins so, and what the page prints below it; `...` is more of it."""
    found = [block for _, block in blocks((DOCS / page).read_text()) if f"$ {command}" in block]
    assert found, f"{page} has no example of `{command}`"
    _, _, rest = found[0].partition(f"$ {command}")
    rest_of_line, _, below = rest.partition("\n")
    words = re.sub(r"\s+# .*$", "", command + rest_of_line).split()
    return words, re.split(r"^\$ ", below, maxsplit=1, flags=re.MULTILINE)[0]


def same(shown: str, said: str) -> bool:
    """Whether a page shows what a command says: all but the rates, and what stands for `...`."""
    pattern = ".*".join(map(re.escape, re.split(r"^\.\.\.\n", RATES.sub("N", shown), flags=re.MULTILINE)))
    return re.fullmatch(pattern, RATES.sub("N", said), re.DOTALL) is not None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the commands; it is the home, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(page: str, command: str) -> None:
    """Run an example, and compare."""
    words, shown = printed(page, command)
    ended = rigflow(*words[1:], COLUMNS="200")
    said = ended.stdout + ended.stderr
    assert same(shown, said), f"{page}, `{' '.join(words)}` prints\n{said}"


def test_pipelines_list(here: Path) -> None:
    check("cli.md", "rigflow pipelines list")


def test_pipelines_check(here: Path) -> None:
    (here / "clips.toml").write_text(rigflow("pipelines", "show", "fingerprint").stdout)
    check("pipelines.md", "rigflow pipelines check clips.toml")


def test_selftest(here: Path) -> None:
    check("cli.md", "rigflow selftest")


def test_a_key_of_the_broker(here: Path) -> None:
    """Another one each time."""
    words, shown = printed("cli.md", "rigflow keys nats worker.nk")
    said = rigflow_process(*words[1:])
    key = re.compile(r"^U[A-Z2-7]{55}$", re.MULTILINE)
    assert key.sub("U", shown) == key.sub("U", said.stdout + said.stderr)


def test_run(here: Path) -> None:
    for name in ("bikes", "bigbuckbunny"):
        shutil.copy(real_clip(name), here)
    check("cli.md", "rigflow run fingerprint")


@pytest.mark.models
@pytest.mark.parametrize("page", ["models.md", "zh-CN/models.md"])
def test_a_model_is_added(here: Path, page: str) -> None:
    _street(here)
    shutil.copy(weights("nanodet_g_416.onnx"), here / "detector.onnx")
    check(page, "rigflow model add detector.onnx")


@pytest.mark.models
def test_a_model_is_listed_and_tested(here: Path) -> None:
    _street(here)
    shutil.copy(weights("nanodet_g_416.onnx"), here / "nanodet.onnx")
    words, _ = printed("cli.md", "rigflow model add nanodet.onnx")
    added = rigflow(*words[1:]).stdout
    assert "certain: rigflow's card nanodet.toml: " in added
    assert "likely: " not in added
    for command in ("list", "test"):
        check("cli.md", f"rigflow model {command}")


def _street(here: Path) -> None:
    with av.open(str(real_clip("bikes"))) as clip:
        frames = [frame for _, frame in zip(range(STREET + 1), clip.decode(video=0), strict=False)]
    frames[STREET].to_image().save(here / "street.png")

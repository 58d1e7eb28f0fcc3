"""Other versions of rigflow for tests: the tree of a git revision, and its commands on the packages that are here."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import environment

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Version:
    """A tree of rigflow; `tree` is the folder of its packages."""

    name: str
    tree: Path

    def environment(self, **extra: str) -> dict[str, str]:
        """What its processes get: its modules before all others, its plugins of tests too."""
        return (
            environment() | {"PYTHONPATH": os.pathsep.join(map(str, (self.tree, self.tree / "tests/packages")))} | extra
        )

    def command(self, *words: str | Path) -> list[str]:
        """The command line of `rigflow WORDS`."""
        return [sys.executable, "-m", "cli", *map(str, words)]

    def run(self, *words: str | Path, **extra: str) -> str:
        """What `rigflow WORDS` says on stdout; it must succeed."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.tree,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: rigflow {' '.join(map(str, words))}: {done.stdout}{done.stderr}"
        return done.stdout

    def check(self) -> None:
        """Its processes import its own modules, and not those of another tree."""
        code = "import schemas, workers; print(schemas.__file__, workers.__file__)"
        out = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.tree,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert [Path(file).parents[1] for file in out.split()] == [self.tree] * 2


HERE = Version("this version", ROOT)


def version_of(revision: str, folder: Path) -> Version:
    """The version of a git revision, its tree in `folder`; skips the test where the history does not have it."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("the history is not here: this is no git checkout")
    found = subprocess.run(
        [git, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"the history here has no revision {revision}")
    folder.mkdir(parents=True)
    packed = subprocess.run([git, "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    version = Version(f"version {revision}", folder)
    version.check()
    return version

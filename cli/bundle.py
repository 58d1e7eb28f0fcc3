"""`rigflow bundle`: writes a folder from which rigflow is installed on machines without internet."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.bundle_profiles import PROFILES, BundleProfile
from cli.options import Json, ends_well
from cli.text import say, say_json, warn
from schemas.errors import ExitCode, OutputError, RigflowError, UsageError
from schemas.text import count, size

INSTALL = """\
#!/bin/sh
# Installs rigflow from this folder, without a network, into a new environment:  sh install.sh [FOLDER]
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
to=${{1:-$HOME/.local/share/rigflow-venv}}
python=${{PYTHON:-python3}}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != ({major}, {minor}) and
    "this bundle is for Python {major}.{minor}; try PYTHON=python{major}.{minor} sh install.sh")'
"$python" -m venv "$to"
pip() {{ "$to/bin/python" -m pip --isolated --disable-pip-version-check "$@"; }}
pip install --quiet --no-index --find-links "$here/wheels" --require-hashes -r "$here/requirements.txt"
{last}echo "installed: $to/bin/rigflow"
exec "$to/bin/rigflow" selftest --for {name}
"""
AGAIN = """\
pip install --quiet --no-index --find-links "$here/wheels" --require-hashes --no-deps --force-reinstall \\
    -r "$here/last.txt"
"""


@ends_well
def bundle(
    to: Annotated[Path, typer.Argument(help="A new folder for it.", metavar="DIR")],
    kind: Annotated[str, typer.Option("--for", help="Machines it is for: cpu, sm75 or sm61.", metavar="KIND")] = "cpu",
    extra: Annotated[
        list[str] | None, typer.Option("--extra", help="An extra, as gateway; repeat it.", metavar="EXTRA")
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option("--add", help="A wheel of your own to have in it; repeat it.", metavar="FILE")
    ] = None,
    source: Annotated[Path, typer.Option(help="Folder of rigflow's source.", metavar="DIR")] = Path(),
    as_json: Json = False,
) -> ExitCode:
    """Write a bundle: all wheels, their hashes, and a script that installs them without internet.

    For the system and the Python that this runs on. On the other machine: sh DIR/install.sh, which ends with
    `rigflow selftest` and says pass, or why not.

    Example: rigflow bundle --for cpu rigflow-cpu
    """
    if kind not in PROFILES:
        raise UsageError(f"--for {kind}", f"there are {', '.join(PROFILES)}")
    if not (source / "pyproject.toml").is_file() or not (source / "schemas").is_dir():
        raise UsageError(f"{source.absolute()} is not rigflow's source", "run it there, or give --source")
    for file in add or ():
        if file.suffix != ".whl" or not file.is_file():
            raise UsageError(f"--add {file}: no wheel", "give the path of a .whl file")
    if to.exists():
        raise OutputError(f"{to} is there already", "give a new folder")
    profile, wheels = PROFILES[kind], to / "wheels"
    try:
        gather(wheels, source, profile, extra or (), add or ())
        write_lists(to, kind, profile)
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)
        raise
    sizes = [file.stat().st_size for file in wheels.iterdir()]
    if as_json:
        say_json({"folder": str(to), "for": kind, "wheels": len(sizes), "nbytes": sum(sizes)})
    else:
        say(f"{to}: {count(len(sizes), 'wheel')} for {profile.what}, {size(sum(sizes))}")
    for missing in without(wheels, profile):
        warn(f"not in it: {missing}; have it in the bundle with --add FILE")
    return ExitCode.OK


def gather(wheels: Path, source: Path, profile: BundleProfile, extras: Sequence[str], added: Sequence[Path]) -> None:
    """Fetch all wheels, and build those that come as source, rigflow's own too. Raises RigflowError."""
    wheels.mkdir(parents=True)
    for file in added:
        shutil.copy2(file, wheels)
    own = f"{source.absolute()}[{','.join(extras)}]" if extras else str(source.absolute())
    lock = source / "requirements.lock"
    bounds = wheels.parent / "bounds.txt"
    asked = {package_of(each) for each in profile.requirements}
    pins = [pin for pin in (pins_of(lock.read_text()) if lock.exists() else ()) if package_of(pin) not in asked]
    bounds.write_text("".join(f"{pin}\n" for pin in pins))
    shutil.rmtree(source / "build" / "lib", ignore_errors=True)  # setuptools packs what an earlier build left there
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--wheel-dir", str(wheels), "--find-links", str(wheels), "--constraint", str(bounds)]
    done = subprocess.run([*command, own, *profile.requirements, *map(str, added)], check=False)
    bounds.unlink()
    if done.returncode:
        raise RigflowError("pip could not gather the wheels", "its output above has the reason")


def pins_of(lock: str) -> list[str]:
    """The lines `name==version` of a lock file, with their conditions, without the hashes."""
    return re.findall(r"^[\w.-]+==[^\s;\\]+(?: ; [^\\\n]+?)?(?= *\\?$)", lock, re.MULTILINE)


def package_of(text: str) -> str:
    """The package of a requirement, or of a wheel's name, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]|-(?=\d)", text)[0]).lower()


def without(wheels: Path, profile: BundleProfile) -> list[str]:
    """What only the owner can give and is not among the wheels, in words."""
    there = {package_of(file.name) for file in wheels.iterdir()}
    return [f"a wheel of {name}, {how}" for name, how in profile.own_files.items() if name not in there]


def write_lists(to: Path, kind: str, profile: BundleProfile) -> None:
    """Write the hashes of the wheels and the script that installs them."""
    lines = {}
    for wheel in sorted((to / "wheels").iterdir()):
        name, version, *_ = wheel.name.split("-")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines[package_of(name)] = f"{name}=={version} --hash=sha256:{digest}\n"
    (to / "requirements.txt").write_text("".join(lines.values()))
    if profile.last:
        (to / "last.txt").write_text("".join(lines[name] for name in profile.last))
    major, minor, *_ = sys.version_info
    last = AGAIN if profile.last else ""
    (to / "install.sh").write_text(INSTALL.format(name=kind, last=last, major=major, minor=minor))

"""requirements.lock fits pyproject.toml, and the bill of materials has what is in it."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("gateway", "search", "cluster", "otel")


def pinned() -> set[tuple[str, str]]:
    """Names and versions."""
    return {(canonicalize_name(name), version) for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", LOCK)}


def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_requirement_has_a_version_that_it_takes() -> None:
    lines = [*PROJECT["dependencies"], *(each for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra])]
    for line in lines:
        requirement = Requirement(line)
        versions = [version for name, version in pinned() if name == canonicalize_name(requirement.name)]
        assert versions, f"{requirement.name}: run `make lock`"
        fit = [requirement.specifier.contains(Version(version), prereleases=True) for version in versions]
        assert all(fit), f"{line}: run `make lock`"


def test_every_python_gets_the_same_versions() -> None:
    """Another release of PyAV has another FFmpeg, which might decode or scale to other pixels."""
    names = [name for name, _ in pinned()]
    assert len(names) == len(set(names)) > 30


def test_every_version_has_the_hash_of_a_file_and_no_place_that_it_comes_from() -> None:
    entries = re.split(r"(?m)^(?=[\w.-]+==)", LOCK)[1:]
    assert len(entries) == len(pinned()) > 30
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in LOCK


def test_the_makefile_locks_these_extras() -> None:
    [line] = re.findall(r"(?m)^LOCKED := (.*)$", (ROOT / "Makefile").read_text())
    assert tuple(line.replace("--extra ", "").split()) == EXTRAS


def test_the_bill_has_each_package_with_its_hashes() -> None:
    bill = sbom().bill(LOCK, PROJECT)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {(canonicalize_name(each["name"]), each["version"]) for each in bill["components"]} == pinned()
    values = [each["value"] for part in bill["components"] for each in part["properties"]]
    assert sorted(value for value in values if len(value) == 64) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))
    own = bill["metadata"]["component"]
    [dependency] = bill["dependencies"]
    assert (own["name"], own["version"], dependency["ref"]) == (PROJECT["name"], PROJECT["version"], own["bom-ref"])
    assert set(dependency["dependsOn"]) == {each["bom-ref"] for each in bill["components"]}
    assert any("licenses" in each for each in bill["components"])
    assert sbom().bill(LOCK, PROJECT) == bill

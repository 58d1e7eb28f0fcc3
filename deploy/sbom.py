"""`make sbom`: a bill of materials of what requirements.lock installs, as CycloneDX 1.6 JSON, on stdout."""

import hashlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENTRY = re.compile(
    r"^([\w.-]+)==([^\s;\\]+)(?: ; ([^\\\n]+?))?(?= *\\?\n)((?: *\\\n    --hash=sha256:[0-9a-f]{64})*)", re.MULTILINE
)


def components(lock: str) -> Iterator[dict[str, Any]]:
    """Each package of a lock file; its licence where the package is installed here, in that version or another."""
    for name, version, condition, files in ENTRY.findall(lock):
        purl = f"pkg:pypi/{name}@{version}"
        found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if licence := licence_of(name):
            found["licenses"] = [{"license": {"name": licence}}]
        hashes = re.findall(r"sha256:([0-9a-f]{64})", files)
        found["properties"] = [{"name": "rigflow:sha256-of-a-file", "value": each} for each in hashes]
        if condition:
            found["properties"].append({"name": "rigflow:condition", "value": condition})
        yield found


def licence_of(name: str) -> str:
    """The licence that a package's own metadata names; empty if it is not installed or names none."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return ""
    classified = [each.split(" :: ")[-1] for each in about.get_all("Classifier", []) if each.startswith("License ::")]
    return about.get("License-Expression", "") or ", ".join(classified) or about.get("License", "").split("\n")[0][:100]


def bill(lock: str, project: dict[str, Any]) -> dict[str, Any]:
    """The bill; equal for equal lock files where the same packages are installed, which name the licences."""
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    application = {"type": "application", "bom-ref": own, "name": project["name"], "version": project["version"]}
    parts = list(components(lock))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(lock.encode()).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {**application, "licenses": [{"license": {"id": project["license"]}}]}},
        "components": parts,
        "dependencies": [{"ref": own, "dependsOn": [each["bom-ref"] for each in parts]}],
    }


if __name__ == "__main__":
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    json.dump(bill((ROOT / "requirements.lock").read_text(), about), sys.stdout, indent=1)

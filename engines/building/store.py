"""Stores engines on this machine: `KEY.plan`, its sidecar `KEY.json`, and the graph it was compiled from.

A damaged engine, or one that does not match its key, is never returned: it counts as absent, and is built again.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from engines.files import atomic_write
from schemas.engine import EngineSpec, Precision
from schemas.errors import ModelError, StoreError, UsageError
from schemas.settings import CACHE_HINT


@dataclass(frozen=True, slots=True)
class Damage:
    """An engine that cannot be used, and the reason."""

    key: str
    reason: str


class EngineStore:
    """A folder of engines; several processes may use the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def listed(self) -> tuple[list[EngineSpec], list[Damage]]:
        """Return every readable sidecar, and the damage of the others; plans are not read."""
        found, damaged = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(self._sidecar(path.stem))
            except ModelError as error:
                damaged.append(Damage(path.stem, error.what))
        return found, damaged

    def find(self, prefix: str) -> EngineSpec:
        """Return the engine whose key begins with `prefix`. Raises UsageError: not one; ModelError: damaged."""
        keys = [path.stem for path in self.folder.glob("*.json") if prefix and path.stem.startswith(prefix)]
        if len(keys) != 1:
            what = f"{len(keys)} engines begin with {prefix}" if keys else f"no engine {prefix}"
            raise UsageError(what, "see `rigflow engine list`")
        return self._sidecar(keys[0])

    def suitable(
        self, model_sha256: str, backend: str, version: str, target: str, precision: Precision, device: str = ""
    ) -> list[EngineSpec]:
        """Return the engines of a model that this backend, in this version, can run on a GPU; most rows first.

        Engines of another version are stale and left out.
        """
        specs = [
            spec
            for spec in self.listed()[0]
            if spec.basis.model_sha256 == model_sha256
            and (spec.basis.backend, spec.basis.version, spec.basis.precision) == (backend, version, precision)
            and target in spec.basis.targets
            and spec.basis.device in ("", device)
        ]
        return sorted(specs, key=lambda spec: -spec.rows)

    def load(self, key: str) -> tuple[EngineSpec, bytes]:
        """Load an engine and check it against its sidecar. Raises ModelError if it is absent, damaged or does not
        match.
        """
        spec = self._sidecar(key)
        plan = self._read(key, ".plan")
        if len(plan) != spec.size_bytes or hashlib.sha256(plan).hexdigest() != spec.sha256:
            raise ModelError(f"engine {key} is damaged: its plan is not the one that was built", "build it again")
        return spec, plan

    def is_intact(self, key: str) -> bool:
        """Return whether an engine is present and undamaged."""
        try:
            self.load(key)
        except ModelError:
            return False
        return True

    def graph(self, spec: EngineSpec) -> bytes | None:
        """Return the ONNX graph that an engine was compiled from; None if it is not stored here."""
        path = self.folder / f"{spec.basis.graph_sha256}.onnx"
        body = path.read_bytes() if path.exists() else b""
        return body if hashlib.sha256(body).hexdigest() == spec.basis.graph_sha256 else None

    def keep(self, spec: EngineSpec, plan: bytes, graph: bytes = b"") -> None:
        """Store an engine, its sidecar last, so that every listed engine is complete. Raises StoreError."""
        if graph:
            self._write(self.folder / f"{spec.basis.graph_sha256}.onnx", graph)
        self._write(self.folder / f"{spec.key}.plan", plan)
        self._write(self.folder / f"{spec.key}.json", spec.model_dump_json(indent=1).encode())

    @contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Lock an engine's build: other processes of this machine wait here until it is built."""
        path = self.folder / f".{key}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise StoreError(f"cannot keep engines in {self.folder}: {error.strerror}", CACHE_HINT) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sidecar(self, key: str) -> EngineSpec:
        try:
            spec = EngineSpec.model_validate_json(self._read(key, ".json"))
        except ValidationError as error:
            raise ModelError(f"engine {key}: its sidecar is damaged or of another rigflow", "build it again") from error
        if spec.key != key:
            raise ModelError(f"engine {key}: its sidecar was changed: it belongs to {spec.key}", "build it again")
        return spec

    def _read(self, key: str, suffix: str) -> bytes:
        try:
            return (self.folder / f"{key}{suffix}").read_bytes()
        except OSError as error:
            raise ModelError(f"engine {key}: {error.strerror}: {key}{suffix}", "build it again") from error

    def _write(self, path: Path, content: bytes) -> None:
        try:
            atomic_write(path, content)
        except OSError as error:
            raise StoreError(f"cannot keep engines in {path.parent}: {error.strerror}", CACHE_HINT) from error

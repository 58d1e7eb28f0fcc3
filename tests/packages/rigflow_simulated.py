"""An installed package that adds the backend `simulated`: checksums, and time that passes without work.

For trials of fleets larger than the machine that they run on: a worker sleeps while another would compute, and every
answer can be checked. The pace is the environment's SIMULATED_PACE_MS when a worker opens the model.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Mapping

import numpy as np

from engines.inference.session import check_inputs
from engines.part import Array
from engines.ports import Device, LoadedEngine, Session
from schemas.model import ModelSpec, TensorSpec
from schemas.settings import Settings

PACE = "SIMULATED_PACE_MS"
DEFAULT_MS = 10.0
BODY = b"crc32 of the bytes of each row"
CARD = ModelSpec(
    name="simulated",
    backend="simulated",
    inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", "H", "W")),),
    outputs=(TensorSpec(name="crc32", dtype="uint32", shape=("N",)),),
    sha256=hashlib.sha256(BODY).hexdigest(),
)


class Simulated:
    name = "simulated"

    def __init__(self, settings: Settings) -> None: ...

    def refuses(self, device: Device) -> str:
        return ""

    def open(self, model: bytes, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        return SimulatedSession(card, float(os.environ.get(PACE, DEFAULT_MS)))


class SimulatedSession:
    """Answers `crc32 [N] uint32` of the bytes of each row of `pixels [N, ...]`, and takes `pace_ms` for each row.

    It sleeps: a hundred of them share one core. The answers do not depend on the pace.
    """

    batch_bytes = 64 << 20

    def __init__(self, spec: ModelSpec, pace_ms: float) -> None:
        self.spec = spec
        self._pace_s = pace_ms / 1000

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answers of one batch, `pace_ms` times its rows after it came. Raises ModelError: inputs do not fit."""
        started_s = time.monotonic()
        check_inputs(self.spec, inputs)
        rows = np.ascontiguousarray(inputs["pixels"])
        answers = np.array([zlib.crc32(row.data) for row in rows], np.uint32)
        time.sleep(max(0.0, started_s + self._pace_s * len(rows) - time.monotonic()))
        return {"crc32": answers}

    def warm_up(self) -> None:
        """Nothing to warm."""

    def close(self) -> None:
        """Nothing to give back."""

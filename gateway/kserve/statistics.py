"""Counts of the requests that this gateway answered, for `/v2/models/NAME/stats`: nothing of other gateways."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Durations:
    """How many, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one."""
        self.count += 1
        self.ns += ns

    def shown(self) -> dict[str, int]:
        """As Triton shows them."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class ModelStatistics:
    """Of one model in one version, since the gateway began.

    `rows` of requests that succeeded; `computed`: seconds that workers' devices computed for these.
    """

    rows: int = 0
    last_ms: int = 0
    success: Durations = field(default_factory=Durations)
    fail: Durations = field(default_factory=Durations)
    computed: Durations = field(default_factory=Durations)

    def answered(self, rows: int, ns: int, computed_s: float) -> None:
        """Count a request with an answer."""
        self.rows += rows
        self.last_ms = int(time.time() * 1000)
        self.success.add(ns)
        self.computed.add(int(computed_s * 1e9))

    def shown(self, name: str, version: str) -> dict[str, Any]:
        """As Triton shows them, without what is not known here."""
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "inference_stats": {
                "success": self.success.shown(),
                "fail": self.fail.shown(),
                "compute_infer": self.computed.shown(),
            },
        }

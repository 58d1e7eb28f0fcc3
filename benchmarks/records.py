"""The records of a run, and the ratios between contestants in them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Records:
    """Lines of json as `python -m benchmarks` keeps them."""

    lines: list[dict[str, Any]]

    @classmethod
    def read(cls, *files: Path) -> "Records":
        """The lines of these files."""
        return cls([json.loads(line) for file in files for line in file.read_text().splitlines()])

    @property
    def rounds(self) -> int:
        """How many rounds were made."""
        timed = [record["round"] for record in self.of("timed") if record["pipeline"] == "fingerprint"]
        return 1 + max(timed, default=-1)

    def kept(self) -> dict[str, dict[str, Any]]:
        """The settings of each peer that were the fastest of those tried."""
        best: dict[str, dict[str, Any]] = {}
        for record in sorted(self.of("sweep"), key=lambda record: float(record["rate"])):
            best[record["contestant"]] = record["options"]
        return best

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind."""
        return [line for line in self.lines if line["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        """The only one of a kind."""
        (line,) = self.of(kind)
        return line

    def timed(self, contestant: str, workload: str, pipeline: str = "fingerprint") -> list[dict[str, Any]]:
        """A contestant's rounds of a workload."""
        wanted = contestant, workload, pipeline
        return [line for line in self.of("timed") if (line["contestant"], line["workload"], line["pipeline"]) == wanted]

    def ratios(
        self, contestant: str, other: str, workload: str, figure: str, pipeline: str = "fingerprint"
    ) -> list[float]:
        """A figure of a contestant to that of another, in each round that both were in."""
        theirs = {line["round"]: line[figure] for line in self.timed(other, workload, pipeline)}
        ours = self.timed(contestant, workload, pipeline)
        return [line[figure] / theirs[line["round"]] for line in ours if theirs.get(line["round"])]

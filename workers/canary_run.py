"""Computes a canary on a worker's card: its media go through the stages of a pipeline as those of a job do."""

import hashlib
import time
from collections.abc import Callable

from engines.canary import Canary, digest_of
from engines.part import Part, Tick, unpack_values
from schemas.errors import RigflowError
from schemas.messages import decode
from schemas.pipeline import DecodeStage, EncodeStage, OperatorStage
from schemas.results import Result
from workers.stages import LoadedPipeline


class TooLong(RigflowError):
    """A canary takes longer than a card should be kept from its work."""


class CanaryFailed(RigflowError):
    """A canary ended with an error: what the card computed since its last good one is not known to be good."""


def compute(pipeline: LoadedPipeline, canary: Canary, tick: Tick, most_s: float) -> tuple[str, float]:
    """The hash of the answer of the stages that this worker can run, and the seconds that they took.

    Call it on the computing thread.

    Raises RigflowError: TooLong after `most_s`, or what a stage raises for this media.
    """
    began_s = time.monotonic()

    def limited() -> None:
        tick()
        if time.monotonic() - began_s > most_s:
            raise TooLong(f"a canary of {pipeline.spec.name} takes longer than {most_s:.0f} s")

    stages, digests = covered(pipeline), []
    for segment, buffers in canary.segments:
        parts = pipeline.decode(segment, buffers, limited)
        digests += [_answer(pipeline, stages, part, limited) for part in parts]
    return hashlib.sha256("".join(digests).encode()).hexdigest(), time.monotonic() - began_s


def covered(pipeline: LoadedPipeline) -> list[str]:
    """The stages behind decode that a canary runs: up to the first one that it cannot run here."""
    names: list[str] = []
    name: str | None = pipeline.spec.decode.name
    while name is not None and (name := pipeline.after(name)) is not None and _runs(pipeline, name):
        names.append(name)
    return names


def _runs(pipeline: LoadedPipeline, name: str) -> bool:
    stage = pipeline.stage(name)
    if isinstance(stage, OperatorStage):
        here = stage.model is None or pipeline.model(stage) is not None
        grows = pipeline.continuous(name) or pipeline.gathers(name)
        return here and not grows and not (pipeline.works_beside and pipeline.beside(name, prepared=False))
    return isinstance(stage, EncodeStage) and name in pipeline.hosted and not pipeline.encodes_apart(stage)


def _answer(pipeline: LoadedPipeline, names: list[str], part: Part, tick: Callable[[], None]) -> str:
    for name in names:
        stage = pipeline.stage(name)
        assert not isinstance(stage, DecodeStage), "nothing comes before decode"
        if isinstance(stage, EncodeStage):
            message, buffers = decode(pipeline.encode(part, tick))
            assert isinstance(message, Result), "encode makes results"
            return digest_of([Part(message.meta, unpack_values(message.arrays, buffers))])
        (outcome,) = pipeline.operate(stage, [part], tick)
        if isinstance(outcome, RigflowError):
            raise outcome
        part = outcome
    return digest_of([part])

"""A fleet that runs only what a known signer published, on a broker with roles."""

import asyncio
from pathlib import Path

import nkeys

from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.guarded import Guarded, made_by_the_operator
from workers.definitions import find_models
from workers.inputs import JobOutcome
from workers.run import run_jobs


def test_workers_do_what_the_operator_signed_and_refuse_what_a_publisher_changed(
    guarded: Guarded, tmp_path: Path
) -> None:
    spec = builtin_pipeline("fingerprint")
    clip = make_clip(tmp_path, Clip(frames=8, size=(32, 32)))
    asyncio.run(made_by_the_operator(guarded, spec.name))
    operator = nkeys.from_seed(bytearray(guarded.seeds["operator"].read_bytes())).public_key.decode()
    worker = guarded.settings("worker") | {"trusted_signers": operator}
    with Fleet(ONE_WORKER, tmp_path / "cache", **worker):
        same = outcome_of(guarded, spec, clip, tmp_path / "same")
        assert same.ok, f"a publisher's signature beside the operator's: {same.error}"
        changed = outcome_of(guarded, spec.model_copy(update={"segment_s": 9.0}), clip, tmp_path / "changed")
    assert not changed.ok
    assert changed.done is not None
    assert "and this process trusts other signers" in changed.done.failures[0]


def outcome_of(guarded: Guarded, spec: PipelineSpec, clip: Path, out: Path) -> JobOutcome:
    """What a publisher gets for a clip."""
    publisher = Settings.model_validate(guarded.settings("publisher"))
    out.mkdir()
    (outcome,) = asyncio.run(run_jobs(publisher, spec, find_models(spec, None), [clip], out, Priority.BULK, Silent()))
    return outcome

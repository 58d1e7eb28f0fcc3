"""Pipelines that a process has read are read once, and the newest of a name is the newest."""

import pytest

from pipelines.known_revisions import KEPT, KnownRevisions
from pipelines.registry import builtin_pipeline, publish_pipeline, withdraw_pipeline
from schemas.errors import PipelineError
from schemas.settings import Settings
from tests.integration.test_registry import a_broker, models_of


async def test_the_newest_revision_is_asked_for_and_what_it_holds_is_not(settings: Settings) -> None:
    spec = builtin_pipeline("scenes")
    async with a_broker(settings) as broker:
        known = KnownRevisions(broker)
        with pytest.raises(PipelineError, match="knows no pipeline scenes"):
            await known.newest("scenes")
        old = await publish_pipeline(broker, spec, models_of(spec))
        first = await known.newest("scenes")
        assert first == old
        assert await known.newest("scenes") is first, "read once"
        new = await publish_pipeline(broker, spec, models_of(spec, b"better weights"))
        assert await known.newest("scenes") == new
        assert await known.get(old.revision) is first, "a job that is pinned to it ends with it"
        await withdraw_pipeline(broker, "scenes")
        with pytest.raises(PipelineError, match="knows no pipeline scenes"):
            await known.newest("scenes")


async def test_it_keeps_the_last_revisions_that_were_used(settings: Settings) -> None:
    spec = builtin_pipeline("fingerprint")
    async with a_broker(settings) as broker:
        known, revisions = KnownRevisions(broker), []
        for second in range(1, KEPT + 2):
            each = spec.model_copy(update={"segment_s": float(second)})
            revisions.append((await publish_pipeline(broker, each, models_of(each))).revision)
        specs = [await known.get(revision) for revision in revisions]
        assert await known.get(revisions[-1]) is specs[-1]
        again = await known.get(revisions[0])
        assert again == specs[0]
        assert again is not specs[0], "it was forgotten"

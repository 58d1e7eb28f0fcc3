"""join: all texts of a media become one part, by the job's collector, on any fleet and after any crash."""

import asyncio
from pathlib import Path

import pytest

from engines.plan import plan_pipeline
from pipelines.broker import Broker
from schemas.errors import PipelineError
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.cases import written
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing, Silent
from tests.raw_media import sent_raw
from tests.sounds import file_of, voice
from workers.definitions import register

RATE, SECONDS, WINDOW = 16000, 21, 2
STAGES = """
[[stage]]
kind = "spelled"
pace_s = 0.02
silent_at = 4.0

[[stage]]
kind = "join"
between = " / "

[[stage]]
kind = "encode"
format = "text"
options = { times = false }
"""
EXPECTED = " / ".join(f"second {at}" for at in range(0, SECONDS, WINDOW) if at != 4) + "\n"


def pipeline(folder: Path, stages: str = STAGES, media: str = '"audio"', decode: str = "") -> PipelineSpec:
    path = written(folder, stages, decode or f"rate = {RATE}\nwindow_s = {WINDOW}.0", media, "joined")
    return parse_pipeline(path.read_text(), path.name)


class Stopped(Silent):
    """Stops the run when a part has come."""

    def __init__(self) -> None:
        super().__init__()
        self.running: asyncio.Task[object] | None = None

    def part(self, job: str, meta: PartMeta) -> None:
        assert self.running is not None
        self.running.cancel()


async def begun_twice(fleet: Fleet, spec: PipelineSpec, talk: Path, out: Path) -> None:
    """A run that is stopped, and the same command again."""
    listener = Stopped()
    listener.running = asyncio.create_task(fleet.run_async(spec, [talk], out, listener))
    with pytest.raises(asyncio.CancelledError):
        await listener.running
    [outcome] = await fleet.run_async(spec, [talk], out)
    assert outcome.ok, outcome


async def by_nats(fleet: Fleet, spec: PipelineSpec, talk: Path) -> bytes:
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, spec, {})
        received = await sent_raw(broker, spec, "by-nats", talk.read_bytes())
    assert received.done.failures == ()
    return received.file


def test_one_worker_three_and_crashes_join_the_same_text(tmp_path: Path) -> None:
    talk, spec = tmp_path / "talk.wav", pipeline(tmp_path)
    talk.write_bytes(file_of(voice(SECONDS, RATE), RATE))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [one] = fleet.run(spec, [talk], tmp_path / "one")
        assert asyncio.run(by_nats(fleet, spec, talk)).decode() == EXPECTED
        asyncio.run(begun_twice(fleet, spec.with_fields({"spelled.pace_s": 0.03}), talk, tmp_path / "twice"))
        (tmp_path / "broken").touch()
        broken = spec.with_fields({"spelled.fails_at": 8.0, "spelled.broken": str(tmp_path / "broken")})
        [failed] = fleet.run(broken, [talk], tmp_path / "failed")
        (tmp_path / "broken").unlink()
        assert rigflow("dead", "retry", "--all", "--nats", fleet.settings.nats).returncode == 0
        [mended] = fleet.run(broken, [talk], tmp_path / "mended")
    stages = (("decode", "spelled", "encode"), ("join", "encode"), ("encode", "spelled"))
    with Fleet(stages, tmp_path / "cache", ack_wait_s=3.0) as three:
        [killed] = three.run(spec, [talk], tmp_path / "killed", Killing(three))
    for outcome in (one, killed, mended):
        assert outcome.ok, outcome
        assert outcome.done is not None
        assert (outcome.done.frames > 0, outcome.done.lost) == (True, 0)
        assert Path(f"{outcome.target}.txt").read_text() == EXPECTED
    assert one.done is not None
    assert killed.done is not None
    assert one.done.digest == killed.done.digest
    assert (tmp_path / "twice" / "talk.joined.txt").read_text() == EXPECTED
    assert failed.done is not None
    assert "it cannot be read" in failed.done.failures[0]
    assert failed.done.files == (), "there is no text of a part of the media"
    assert "stage `join` takes the entire media, and it was not run, because parts of the media failed" in str(
        failed.done.notes
    )


@pytest.mark.parametrize(
    ("stages", "media", "error"),
    [
        ('[[stage]]\nkind = "join"', '"audio"', "stage `join` needs texts as `text`, and there is `sound`"),
        (
            '[[stage]]\nkind = "spelled"\n[[stage]]\nkind = "join"\n[[stage]]\nkind = "join"\nname = "again"',
            '"audio"',
            "stage `again` takes the entire media, and so does `join` before it",
        ),
        (
            '[[stage]]\nkind = "join"',
            '"text"',
            "stage `join` takes an entire media, and items of text are independent",
        ),
        (
            '[[stage]]\nkind = "spelled"\n[[stage]]\nkind = "join"\nkeeps = ["sound"]',
            '"audio"',
            "stage `join` makes one row of a media, and cannot keep `sound`",
        ),
    ],
)
def test_a_pipeline_that_cannot_join_is_refused(stages: str, media: str, error: str, tmp_path: Path) -> None:
    decode = "" if media == '"audio"' else 'pieces = "whole"'
    spec = pipeline(tmp_path, f'{stages}\n[[stage]]\nkind = "encode"\nformat = "text"', media, decode)
    with pytest.raises(PipelineError, match=error):
        plan_pipeline(spec, {})

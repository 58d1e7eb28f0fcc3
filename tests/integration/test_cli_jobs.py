"""`rigflow publish` and `rigflow results` against a real fleet: publish here, collect there, later."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import nats
import numpy as np
import pytest

from cli.app import app
from pipelines.broker import Broker
from pipelines.inventory import take_inventory
from pipelines.job_records import find_manifest
from pipelines.registry import builtin_pipeline
from schemas.settings import Settings
from tests.clips import Clip, make_clip, real_clip, still
from tests.damage import overwritten
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import register_builtin


def rigflow(*arguments: str | Path) -> int:
    """Run a command of the command line in this process; its exit code."""
    return int(app([str(argument) for argument in arguments], standalone_mode=False) or 0)


def test_a_job_is_published_and_collected_later_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, out = real_clip("bikes"), tmp_path / "out"
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", clip, *where) == 0
        job = capsys.readouterr().out.strip()
        assert len(job) == 20
        assert rigflow("results", job, "--follow", "--out", out, *where) == 0
        [outcome] = fleet.run(builtin_pipeline("fingerprint"), [clip], tmp_path / "plain")
        assert outcome.ok
        name = "bikes.fingerprint.npz"
        with np.load(out / name) as ours, np.load(tmp_path / "plain" / name) as plain:
            np.testing.assert_array_equal(ours["descriptor"], plain["descriptor"])
        capsys.readouterr()
        assert rigflow("results", job, "--out", out, *where) == 1
        assert f"rigflow: job {job} is done: its results were collected before ({name})" in capsys.readouterr().err
        assert rigflow("publish", "fingerprint", clip, *where) == 0
        said = capsys.readouterr()
        assert said.out.strip() == job
        assert "published before, and no results of it are at the broker: it is done again" in said.err
        assert rigflow("results", job, "--follow", "--out", tmp_path / "again", *where) == 0
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
        assert rigflow("publish", "scenes", clip, "--job", job, *where) == 0
        said = capsys.readouterr().err.replace("\n", " ")
        assert f"job {job} was of fingerprint, and is over: its id is now of scenes" in said
        assert "done again" not in said


def test_results_say_what_is_missing_and_write_nothing_before_the_job_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = make_clip(tmp_path, Clip(frames=250, sound="aac")), tmp_path / "out"
    with Fleet((), tmp_path / "cache") as nobody:
        where = ("--nats", nobody.settings.nats)
        assert rigflow("publish", "upscale2x", clip, "--job", "mine", "--interactive", *where) == 0
        assert capsys.readouterr().out == "mine\n"
        assert rigflow("results", "mine", "--out", out, *where) == 1
        there, missing, hint = capsys.readouterr().out.splitlines()
        assert (there, missing) == (f"{clip.name} (mine): 0 of 3 segments there", "missing: 0-2")
        assert hint.startswith("`rigflow jobs wait mine` waits until it is over")
        assert not out.exists()
        assert rigflow("results", "other", *where) == 2
        assert "rigflow: the broker knows no job other" in capsys.readouterr().err


def test_results_of_several_jobs_are_collected_and_an_error_of_one_ends_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        for job in ("one", "two"):
            clip = make_clip(tmp_path, Clip(frames=20))
            assert rigflow("publish", "fingerprint", clip, "--job", job, *where) == 0
        assert rigflow("results", "one", "none", "two", "--follow", "--out", out, *where) == 1
        reported = capsys.readouterr().err
        assert "the broker knows no job none" in reported
        assert "frames/s" not in reported
        names = sorted(path.name for path in out.iterdir())
        assert names == sorted([f"{clip.stem}.fingerprint.npz", f"{clip.name}.fingerprint.npz"])


def test_pictures_given_together_are_one_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, picture in enumerate(pictures):
        picture.write_bytes(still("mjpeg", seed=number))
    pictures[1].write_bytes(b"\xff\xd8\xff broken")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", *pictures, "--job", "album", *where) == 0
        assert rigflow("results", "album", "--follow", "--out", tmp_path / "out", *where) == 1
        with np.load(tmp_path / "out" / "images.fingerprint.npz") as arrays:
            assert arrays["names"].tolist() == ["0.jpg", "2.jpg"]


def _told(job: str, where: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, dict[str, Any]]:
    """What the commands say of a job: the exit code and the line of `jobs wait`, and the facts of `jobs show`."""
    capsys.readouterr()
    code = rigflow("jobs", "wait", job, *where)
    line = capsys.readouterr().out.strip()
    assert rigflow("jobs", "show", job, "--json", *where) == 0
    shown = json.loads(capsys.readouterr().out)
    assert rigflow("jobs", "list", "--json", *where) == 0
    listed = {each["job"]["id"]: each for each in json.loads(capsys.readouterr().out)}[job]
    assert shown["state"] == listed["state"]
    facts = {name: shown[name] for name in ("state", "failures", "reasons", "notes", "frames", "lost")}
    assert {name: listed[name] for name in facts} == facts
    return code, line, facts


def _two_pictures(folder: Path) -> list[Path]:
    """A picture that is whole, and one that is broken."""
    folder.mkdir()
    (folder / "good.jpg").write_bytes(still("mjpeg"))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    return [folder / "good.jpg", folder / "bad.jpg"]


def _no_frame(folder: Path) -> list[Path]:
    """A film of which no frame that windows look at can be decoded whole."""
    folder.mkdir()
    return [overwritten(folder, "h264", 0)]


@pytest.mark.parametrize("make", [_two_pictures, _no_frame])
def test_a_job_is_shown_alike_before_and_after_its_results_are_fetched(
    make: Callable[[Path], list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = make(tmp_path / "media")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("run", "fingerprint", *media, "--out", tmp_path / "run", *where) == 1
        assert rigflow("publish", "fingerprint", *media, "--job", "j", *where) == 0
        before = _told("j", where, capsys)
        assert (before[0], before[2]["state"], before[2]["failures"]) == (1, "failed", 1)
        assert rigflow("results", "j", "--out", tmp_path / "out", *where) == 1
        assert _told("j", where, capsys) == before


@pytest.mark.parametrize("workers", [(), ONE_WORKER], ids=["not over", "over"])
def test_an_id_that_another_job_has_is_free_after_what_the_hint_says(
    workers: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path, Clip(frames=20))
    picture = tmp_path / "still.jpg"
    picture.write_bytes(still("mjpeg"))
    with Fleet(workers, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        if workers:
            assert rigflow("jobs", "wait", "mine", *where) == 0
        capsys.readouterr()
        assert rigflow("publish", "fingerprint", picture, "--job", "mine", *where) == 2
        hint = re.search("choose another id, or .*`rigflow ([^`]+)`", capsys.readouterr().err.replace("\n", " "))
        assert hint is not None
        assert rigflow(*hint[1].split(), *where) == 0
        assert capsys.readouterr().out == "mine: deleted\n"
        assert rigflow("publish", "fingerprint", picture, "--job", "mine", *where) == 0
        assert rigflow("jobs", "show", "mine", "--json", *where) == 0
        shown = json.loads(capsys.readouterr().out.partition("\n")[2])
        assert (shown["name"], shown["job"]["generation"]) == ("still.jpg", 1)
        if workers:
            assert rigflow("jobs", "wait", "mine", *where) == 0
            assert rigflow("results", "mine", "--out", tmp_path / "out", *where) == 0
            assert (tmp_path / "out" / "still.fingerprint.npz").exists()
        assert rigflow("jobs", "delete", "other", *where) == 2


def test_that_a_film_is_truncated_is_said_by_run_and_of_its_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_clip(tmp_path, Clip(frames=250, container="mkv", sound="aac"))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with av.open(cut) as container:
        frames = sum(1 for packet in container.demux(video=0) if packet.size)
    assert 50 < frames < 200
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("run", "fingerprint", cut, "--out", tmp_path / "run", *where) == 0
        name, _, note = capsys.readouterr().err.strip().splitlines()[-1].partition(": ")
        assert (name, note.startswith("it is truncated, or its picture ends early")) == ("cut.mkv", True)
        assert float(note.split()[8]) == pytest.approx(frames / 25, abs=0.1)
        assert note.endswith(" s of the 10.0 s that its header says")
        assert rigflow("publish", "fingerprint", cut, "--job", "j", *where) == 0
        before = _told("j", where, capsys)
        facts = {"state": "done", "failures": 0, "reasons": [], "notes": [note], "frames": frames, "lost": 0}
        assert (before[0], before[2]) == (0, facts)
        assert rigflow("jobs", "show", "j", *where) == 0
        assert f"note      {note}" in re.sub(r"\n {10}", " ", capsys.readouterr().out)
        assert rigflow("results", "j", "--out", tmp_path / "out", *where) == 0
        assert _told("j", where, capsys) == before


def test_what_cannot_be_published_is_reported_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, clip = tmp_path / "text.mp4", make_clip(tmp_path, Clip(frames=20))
    text.write_text("not media")
    with Fleet((), tmp_path / "cache") as nobody:
        where = ("--nats", nobody.settings.nats)
        assert rigflow("publish", "fingerprint", text, clip, *where) == 1
        reported = capsys.readouterr()
        assert len(reported.out.split()) == 1
        assert "is no video, sound or picture" in reported.err
        (picture := tmp_path / "still.jpg").write_bytes(still("mjpeg"))
        assert rigflow("publish", "scenes", picture, clip, *where) == 1
        assert rigflow("run", "scenes", picture, "--out", tmp_path, *where) == 2
        assert rigflow("publish", "scenes", picture, *where) == 2, "one mistake has one code"
        capsys.readouterr()
        assert rigflow("publish", "scenes", picture, tmp_path / "gone.mp4", *where) == 2
        named = f"rigflow: {picture}: pipeline scenes takes video, this is image: see `rigflow pipelines list`"
        assert named in capsys.readouterr().err
        assert rigflow("publish", "fingerprint", clip, text, "--job", "one", *where) == 2
        assert rigflow("publish", "fingerprint", clip, "--job", "a/b", *where) == 2
        assert rigflow("publish", "fingerprint", tmp_path / "gone.mp4", *where) == 2
        assert rigflow("publish", "nothing", clip, *where) == 2
    assert rigflow("publish", "fingerprint", clip, *where) == 3
    assert "no broker at" in capsys.readouterr().err


def test_the_same_run_again_gives_the_same_results_again(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=60))
    spec = builtin_pipeline("fingerprint")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [first] = fleet.run(spec, [clip], tmp_path / "first")
        [second] = fleet.run(spec, [clip], tmp_path / "second")
        assert first.done is not None
        assert second.done is not None
        assert (first.done.digest, first.done.files) == (second.done.digest, second.done.files)
        assert (second.job.id, second.job.generation) == (first.job.id, first.job.generation + 1)
        assert (tmp_path / "second" / second.done.files[0]).exists()


def test_raw_media_comes_back_as_files_which_results_can_fetch_too(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=60, sound="aac"))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        asyncio.run(_publish_raw(fleet.settings, clip.read_bytes(), "raw", "holiday ü.mp4"))
        out = tmp_path / "out"
        assert rigflow("results", "raw", "--out", out, *where) == 0
        assert [path.name for path in out.iterdir()] == ["holiday ü.upscale2x.mp4"]
        assert rigflow("results", "raw", "--out", out, *where) == 0
        assert len(list(out.iterdir())) == 1, "equal results are not written again"
        with av.open(str(out / "holiday ü.upscale2x.mp4")) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
            assert sum(1 for _ in container.decode(video=0)) == 60


def test_raw_media_survives_the_worker_that_splits_and_collects_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=250, sound="aac"))
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=3.0) as fleet:
        asyncio.run(_publish_raw_and_kill(fleet, clip))
        out = tmp_path / "out"
        assert rigflow("results", "raw", "--out", out, "--nats", fleet.settings.nats) == 0
        with av.open(str(out / "raw.upscale2x.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 250


async def _publish_raw_and_kill(fleet: Fleet, clip: Path) -> None:
    """Kill -9 the only worker once some results are there, and start another."""
    await register_builtin(fleet.settings)
    client = await nats.connect(fleet.settings.nats)
    results = await client.subscribe("rigflow.results.main.upscale2x.raw")
    await client.jetstream().publish("rigflow.media.main.upscale2x", clip.read_bytes(), headers={"Rigflow-Job": "raw"})
    kinds = []
    while "done" not in kinds:
        kinds.append((await results.next_msg(60)).headers["Rigflow-Type"])
        if kinds.count("part") == 2 and kinds[-1] == "part":
            await asyncio.to_thread(fleet.kill, 0)
    assert kinds.count("file") == 1
    await client.close()


async def _publish_raw(settings: Settings, media: bytes, job: str, name: str) -> None:
    """Publish as a client with plain nats-py would, twice; wait until the job is over."""
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    headers = {"Rigflow-Job": job, "Rigflow-Name": name}
    for _ in range(2):
        await client.jetstream().publish("rigflow.media.main.upscale2x", media, headers=headers)
    await client.close()
    broker = await Broker.connect(settings)
    done = None
    while done is None:
        await asyncio.sleep(0.05)
        manifest = await find_manifest(broker, job)
        done = None if manifest is None else (await take_inventory(broker, manifest)).done
    assert not done.failures
    await broker.close()


def test_of_a_file_that_is_refused_no_job_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (noise := tmp_path / "noise.mp4").write_bytes(b"no film")
    with Fleet((), tmp_path / "cache") as nobody:
        where = ("--nats", nobody.settings.nats)
        refused = "noise.mp4 is no video, sound or picture that rigflow reads"
        assert rigflow("publish", "fingerprint", noise, "--job", "mine", *where) == 1
        assert capsys.readouterr().err.startswith(f"rigflow: {noise.parent}/{refused}")
        assert rigflow("run", "fingerprint", noise, "--out", tmp_path / "out", *where) == 1
        assert refused in capsys.readouterr().err
        assert rigflow("jobs", "list", *where) == 0
        assert capsys.readouterr().out == "no jobs\n"
        clip = make_clip(tmp_path, Clip(frames=20))
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        assert capsys.readouterr().err == "", "the id is free"

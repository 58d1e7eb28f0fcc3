"""The programs of docs/clients.md in both languages: under roles.conf, against a real broker and real workers."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import nats
import numpy as np
import pytest

from pipelines.broker import Broker
from pipelines.job_end import publish_done
from pipelines.job_records import find_manifest
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from schemas.jobs import JobRef, JobState, Key, Manifest
from schemas.results import Delta, Done
from schemas.settings import Settings
from schemas.subjects import Names
from tests.clients_doc import JAVASCRIPT, JS_PACKAGES, PYTHON, Language, noise_film, noise_picture
from tests.clips import Clip, make_clip, still
from tests.fleet import ONE_WORKER, Fleet
from tests.guarded import Guarded, made_by_the_operator
from tests.tenants import Shared
from workers.definitions import register_builtin

PROGRESS = """
async def main():
    client = await nats.connect(URL, **ROLE)
    print(percent(await manifest_of(client.jetstream(), "JOB")))
    await client.close()
asyncio.run(main())
"""
CANCEL = """
async def main():
    client = await nats.connect(URL, **ROLE)
    await cancel(client.jetstream(), "fingerprint", "JOB")
    print(await files_of(client.jetstream(), "fingerprint", "JOB"))
    await client.close()
asyncio.run(main())
"""
CALLS = {  # what a program of each language is to do
    "percents": {
        PYTHON: 'print(json.dumps([percent(each) for each in json.loads(Path("manifests.json").read_text())]))',
        JAVASCRIPT: 'console.log(JSON.stringify(JSON.parse(readFileSync("manifests.json")).map(percent)))',
    },
    "progress": {
        PYTHON: PROGRESS,
        JAVASCRIPT: "const { connection, direct } = await open();\n"
        'console.log(percent(await manifestOf(direct, "JOB")).toFixed(1));\nawait connection.close();',
    },
    "cancel": {
        PYTHON: CANCEL,
        JAVASCRIPT: "const { connection, broker, direct } = await open();\n"
        'await cancel(broker, "fingerprint", "JOB");\n'
        'console.log(JSON.stringify(await filesOf(direct, "fingerprint", "JOB")));\nawait connection.close();',
    },
    "answers": {
        PYTHON: 'print(json.dumps(asyncio.run(answers("fingerprint", "JOB", "why?"))))',
        JAVASCRIPT: 'console.log(JSON.stringify(await answers("fingerprint", "JOB", "why?")));',
    },
    "large": {
        PYTHON: 'files = asyncio.run(send_large("fingerprint", "JOB", Path("film.mkv")))\n'
        "print(json.dumps([str(file) for file in files]))",
        JAVASCRIPT: 'console.log(JSON.stringify(await sendLarge("fingerprint", "JOB", "film.mkv")));',
    },
    "small": {
        PYTHON: 'print(asyncio.run(process("upscale2x", "JOB", Path("photo.jpg"))))',
        JAVASCRIPT: 'console.log(await send("upscale2x", "JOB", "photo.jpg"));',
    },
    "rows": {
        PYTHON: 'print(asyncio.run(fingerprint("JOB", Path("clip.mp4"))).astype(float).tolist())',
        JAVASCRIPT: 'console.log(JSON.stringify((await fingerprint("JOB", "clip.mp4")).map((row) => [...row])));',
    },
}


@pytest.fixture(params=[PYTHON, JAVASCRIPT], ids=["python", "javascript"])
def language(request: pytest.FixtureRequest) -> Language:
    found: Language = request.param
    if found is JAVASCRIPT and not JS_PACKAGES.exists():
        pytest.skip("the packages of @nats-io are not here: make test-js")
    return found


def call(language: Language, what: str, job: str) -> str:
    return CALLS[what][language].replace("JOB", job)


def test_percent_of_manifests(language: Language, tmp_path: Path) -> None:
    ref = JobRef(id="a", pipeline="p", revision="r")
    states = [
        {},
        {"segments": 4, "sent_s": 40.0, "duration_s": 100.0, "segments_done": 2},
        {"segments": 8, "total": 8, "segments_done": 6},
        {"state": JobState.CANCELLED},
        {"state": JobState.DONE, "segments": 8, "total": 8, "segments_done": 8},
        {"segments": 1, "sent_s": 1.0, "duration_s": 1.0, "segments_done": 2},
    ]
    manifests = [Manifest(job=ref, name="a", **state).model_dump(mode="json") for state in states]
    (tmp_path / "manifests.json").write_text(json.dumps([None, *manifests]))
    said = language.run(call(language, "percents", ""), tmp_path, {"PATH": ""})
    assert json.loads(said) == [0, 0, 20, 75, 100, 100, 100]


def test_media_of_any_size_become_files_and_numbers(
    guarded: Guarded,
    tmp_path: Path,
    language: Language,
) -> None:
    """In the role of a client; media larger than a message in that of a publisher."""
    (tmp_path / "photo.jpg").write_bytes(still("mjpeg", size=(48, 64)))
    make_clip(tmp_path, Clip(frames=130)).rename(tmp_path / "clip.mp4")
    assert noise_film(tmp_path / "film.mkv").stat().st_size > 10 << 20
    asyncio.run(made_by_the_operator(guarded, "fingerprint", "upscale2x"))
    as_client, as_publisher = guarded.environment("client"), guarded.environment("publisher")
    with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")) as fleet:
        assert "photo.upscale2x.png" in language.run(call(language, "small", "small"), tmp_path, as_client)
        rows = json.loads(language.run(call(language, "rows", "rows"), tmp_path, as_client))
        files = json.loads(language.run(call(language, "large", "large"), tmp_path, as_publisher))
        assert float(language.run(call(language, "progress", "large"), tmp_path, as_client)) == 100
        fleet.settings = Settings.model_validate(guarded.settings("operator"))
        spec = builtin_pipeline("fingerprint")
        ours = fleet.run(spec, [tmp_path / "clip.mp4", tmp_path / "film.mkv"], tmp_path / "ours")
    with av.open(str(tmp_path / "photo.upscale2x.png")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").shape == (96, 128, 3)
    assert files == ["film.fingerprint.npz"]
    assert (tmp_path / files[0]).read_bytes() == (tmp_path / "ours" / files[0]).read_bytes()
    assert ours[0].done is not None
    with np.load(tmp_path / "ours" / ours[0].done.files[0]) as arrays:
        np.testing.assert_array_equal(np.array(rows, np.float32), arrays["descriptor"])


def test_a_program_of_a_tenant_has_other_names(guarded: Guarded, tmp_path: Path, language: Language) -> None:
    """Those of the table of docs/tenants.md, and no name of a role."""
    names = {f"{ours}.main.": f"{ours}.acme." for ours in ("media", "results", "cancel", "deltas")}
    names |= {f"{ours}": f"{ours}_acme" for ours in ("RIGFLOW_RESULTS", "rigflow_blobs", "rigflow_jobs")}
    names |= {"rigflow_jobs_acme.main.": "rigflow_jobs_acme.acme."}
    (tmp_path / "photo.jpg").write_bytes(still("mjpeg", size=(48, 64)))
    shared = Shared(guarded, tmp_path)
    asyncio.run(shared.begin())
    shared.add("acme")
    asyncio.run(made_by_the_operator(guarded, "upscale2x"))
    environment = guarded.environment("client") | {"NATS_SEED": shared.seeds["acme"].read_text(), "NATS_ROLE": ""}
    with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")):
        said = language.run(call(language, "small", "small"), tmp_path, environment, names)
        assert "photo.upscale2x.png" in said
        assert float(language.run(call(language, "progress", "small"), tmp_path, environment, names)) == 100
    assert (tmp_path / "photo.upscale2x.png").exists()


def test_a_client_cancels_its_jobs(guarded: Guarded, tmp_path: Path, language: Language) -> None:
    """One that is cut and computed by nobody, and one whose media has not come yet."""
    make_clip(tmp_path, Clip(frames=130)).rename(tmp_path / "clip.mp4")
    asyncio.run(made_by_the_operator(guarded))
    environment = guarded.environment("client")
    with Fleet((("split", "collect"),), tmp_path / "cache", **guarded.settings("worker")):
        assert float(language.run(call(language, "progress", "cut"), tmp_path, environment)) == 0
        waiting = language.start(call(language, "rows", "cut"), tmp_path, environment)
        asyncio.run(until(guarded, "cut", JobState.PUBLISHED))
        assert float(language.run(call(language, "progress", "cut"), tmp_path, environment)) == 0
        assert json.loads(language.run(call(language, "cancel", "cut"), tmp_path, environment)) == []
        assert float(language.run(call(language, "progress", "cut"), tmp_path, environment)) == 100
        waiting.communicate(timeout=60)  # it has its done
        assert json.loads(language.run(call(language, "cancel", "early"), tmp_path, environment)) == []
        asyncio.run(until(guarded, "early", JobState.CANCELLED))
    assert "Violation" not in guarded.log.read_text(), "nobody needs more"


async def until(guarded: Guarded, job: str, state: JobState) -> None:
    settings = Settings.model_validate(guarded.settings("operator"))
    async with Broker.connected(settings, "test") as broker, asyncio.timeout(60):
        while (manifest := await find_manifest(broker, job)) is None or manifest.state is not state:
            await asyncio.sleep(0.05)


def test_text_comes_as_it_is_written(guarded: Guarded, tmp_path: Path, language: Language) -> None:
    """From a worker of the test's own, which begins an answer anew as another one does after a death."""
    asyncio.run(made_by_the_operator(guarded))
    program = language.start(call(language, "answers", "q"), tmp_path, guarded.environment("client"))
    asyncio.run(answering(guarded, "q"))
    said, complaint = program.communicate(timeout=60)
    assert (program.returncode, complaint) == (0, "")
    assert said == "half anwhole answerother" + '["whole answer", "other"]\n' or json.loads(
        said.removeprefix("half anwhole answerother")
    ) == ["whole answer", "other"]


async def answering(guarded: Guarded, job: str) -> None:
    ref = JobRef(id=job, pipeline="fingerprint", revision="r")
    async with Broker.connected(Settings.model_validate(guarded.settings("worker")), "test") as broker:
        operator = await Broker.connect(Settings.model_validate(guarded.settings("operator")))
        async with asyncio.timeout(60):
            while not [stored async for stored in operator.read(Names().media_stream("fingerprint"))]:
                await asyncio.sleep(0.05)
        await operator.close()
        for generation, row, number, text in (
            (1, 0, 0, "half"),
            (1, 0, 1, " an"),
            (2, 0, 0, "whole"),
            (1, 0, 2, "late"),
            (2, 0, 1, " answer"),
            (1, 1, 0, "other"),
        ):
            delta = Delta(key=Key(job=ref, segment=0), generation=generation, row=row, number=number, text=text)
            broker.connection.send(broker.names.deltas(ref), delta.encode(), headers={"Rigflow-Type": "delta"})
        await broker.connection.flush()
        await publish_done(broker, Done(job=ref, segments=1, frames=1, lost=0), "test")


def test_the_blocks_in_order_give_what_the_text_says(tmp_path: Path, language: Language) -> None:
    """As they stand, against a broker without roles."""
    (tmp_path / "photo.jpg").write_bytes(still("mjpeg", size=(48, 64)))
    make_clip(tmp_path, Clip(frames=130, sound="aac")).rename(tmp_path / "clip.mp4")
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(register_builtin(fleet.settings))
        said = language.run("\n".join(language.calls), tmp_path, {"PATH": "", "NATS_URL": fleet.settings.nats})
    if language is JAVASCRIPT:
        assert said == "[ 'photo.upscale2x.png' ]\n"
        return
    first, second, third = said.splitlines()
    assert first == "[PosixPath('photo.upscale2x.png')]"
    assert second == "[PosixPath('clip.upscale2x.mp4')]"
    assert third.startswith("(")
    with av.open(str(tmp_path / "clip.upscale2x.mp4")) as container:
        frames = [(frame.height, frame.width) for frame in container.decode(video=0)]
        assert frames == [(144, 256)] * 130
    with av.open(str(tmp_path / "clip.upscale2x.mp4")) as container, av.open(str(tmp_path / "clip.mp4")) as source:
        assert [bytes(packet) for packet in container.demux(audio=0)] == [
            bytes(packet) for packet in source.demux(audio=0)
        ]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "it is not set"),
        ("nats://127.0.0.1:1", ""),
        ("nats://rigflow:wrong@{where}", ""),
    ],  # the server may be faster than its reason
)
def test_a_connection_that_is_not_there_is_a_line(tmp_path: Path, language: Language, url: str, words: str) -> None:
    server = EmbeddedServer(guarded=True)
    server.start()
    try:
        environment = {"PATH": ""} | ({"NATS_URL": url.format(where=server.url.removeprefix("nats://"))} if url else {})
        (tmp_path / "photo.jpg").write_bytes(b"any")
        program = language.start(call(language, "small", "a"), tmp_path, environment)
        said, complaint = program.communicate(timeout=60)
    finally:
        server.stop()
    assert (program.returncode, said) == (1, "")
    assert complaint.startswith("no connection to the broker in NATS_URL: ")
    assert words in complaint
    assert complaint.count("\n") == 1, complaint


@pytest.mark.parametrize("wrong", ["letter", "short"])
def test_a_seed_that_is_none_is_a_line(guarded: Guarded, tmp_path: Path, language: Language, wrong: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"any")
    environment = guarded.environment("client")
    seed = environment["NATS_SEED"].strip()
    environment["NATS_SEED"] = (
        f"{seed[:20]}{'A' if seed[20] != 'A' else 'B'}{seed[21:]}" if wrong == "letter" else seed[:20]
    )
    program = language.start(call(language, "small", "a"), tmp_path, environment)
    said, complaint = program.communicate(timeout=60)
    assert (program.returncode, said) == (1, "")
    assert complaint.startswith("no connection to the broker in NATS_URL: ")
    assert complaint.count("\n") == 1, complaint


def test_a_pipeline_that_is_not_there_is_a_line(tmp_path: Path, language: Language) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"any")
    as_people_run_it = replace(language, command=language.command[:1])  # Python shows no warning of what is not closed
    server = EmbeddedServer()
    server.start()
    try:
        asyncio.run(register_builtin(Settings.model_validate({"nats": server.url})))
        asked = call(language, "small", "a").replace("upscale2x", "nosuch")
        program = as_people_run_it.start(asked, tmp_path, {"PATH": "", "NATS_URL": server.url})
        said, complaint = program.communicate(timeout=60)
    finally:
        server.stop()
    expected = "no stream takes rigflow.media.main.nosuch: the fleet has no such pipeline\n"
    assert (program.returncode, said, complaint) == (1, "", expected)


def test_other_media_under_a_known_id_are_not_sent(tmp_path: Path, language: Language) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(register_builtin(fleet.settings))
        environment = {"PATH": "", "NATS_URL": fleet.settings.nats}
        for seed in (1, 1, 2):
            (tmp_path / "photo.jpg").write_bytes(still("mjpeg", size=(48, 64), seed=seed))
            program = language.start(call(language, "small", "photo-1"), tmp_path, environment)
            said, complaint = program.communicate(timeout=60)
            if seed == 1:
                assert (program.returncode, complaint) == (0, "")
    assert (program.returncode, said) == (1, "")
    assert complaint.startswith("job photo-1 has other media (photo.jpg): take another id\n")


def test_a_password_in_the_url(tmp_path: Path, language: Language) -> None:
    """As the broker of `rigflow up` has one."""
    server = EmbeddedServer(guarded=True)
    server.start()
    try:
        password = (server.store / "password").read_text()
        url = server.url.replace("//", f"//rigflow:{password}@")
        asyncio.run(register_builtin(Settings(nats=url)))
        said = language.run(call(language, "progress", "none"), tmp_path, {"PATH": "", "NATS_URL": url})
        assert float(said) == 0
    finally:
        server.stop()


def test_a_result_larger_than_a_message_comes_by_the_object_store(
    guarded: Guarded, tmp_path: Path, language: Language
) -> None:
    (tmp_path / "photo.jpg").write_bytes(noise_picture())
    asyncio.run(made_by_the_operator(guarded, "upscale2x"))
    with Fleet(ONE_WORKER, tmp_path / "cache", **guarded.settings("worker")):
        language.run(call(language, "small", "noise"), tmp_path, guarded.environment("client"))
    assert (tmp_path / "photo.upscale2x.png").stat().st_size > 8 << 20
    with av.open(str(tmp_path / "photo.upscale2x.png")) as container:
        assert next(container.decode(video=0)).width == 2048


async def test_a_name_with_folders_in_it_stays_in_the_folder(
    settings: Settings, tmp_path: Path, language: Language
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "photo.jpg").write_bytes(b"any")
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    subject = "rigflow.results.main.upscale2x.photo-1"
    names = ["../outside.png", f"{tmp_path}/absolute.png", "inside.png"]
    for number, name in enumerate([*names, ".."]):
        headers = {"Rigflow-Type": "file", "Rigflow-Name": name, "Nats-Msg-Id": str(number)}
        await client.jetstream().publish(subject, name.encode(), headers=headers)
    environment = {"PATH": "", "NATS_URL": settings.nats}
    program = language.start(call(language, "small", "photo-1"), tmp_path / "here", environment)
    _, complaint = await asyncio.to_thread(program.communicate, timeout=60)
    await client.close()
    assert "not the name of a file" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    made = {path.suffix for path in (tmp_path / "here").iterdir()}
    assert {path.name for path in (tmp_path / "here").glob("*.png")} == {"absolute.png", "inside.png", "outside.png"}
    assert made <= {".png", ".py", ".mjs", ".jpg", ""}


async def test_publishing_waits_while_the_fleet_is_full(settings: Settings) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(PYTHON.blocks[0], "docs/clients.md", "exec"), namespace)
    publish: Callable[..., Awaitable[None]] = namespace["publish"]
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    broker = client.jetstream()
    subject, body = "rigflow.media.main.upscale2x", bytes(3 << 20)
    for _ in range(2):  # the second time it is a repeat
        await publish(broker, subject, body, {"Rigflow-Job": "a"}, "a")
    waiting = asyncio.create_task(publish(broker, subject, body, {"Rigflow-Job": "b"}, "b"))  # type: ignore[arg-type]
    await asyncio.sleep(0.3)
    assert not waiting.done()
    ours = await Broker.connect(settings)
    media = Names(settings.prefix).media_stream("upscale2x")
    assert len([stored async for stored in ours.read(media)]) == 1
    await ours.purge(media, ">")
    await asyncio.wait_for(waiting, 60)
    assert [stored.headers["Rigflow-Job"] async for stored in ours.read(media)] == ["b"]
    await ours.close()
    await client.close()


def test_the_javascript_can_be_parsed(tmp_path: Path) -> None:
    if not Path(JAVASCRIPT.command[0]).is_absolute():
        pytest.skip("node is not on this machine")
    (tmp_path / "example.mjs").write_text("\n".join(JAVASCRIPT.blocks))
    checked = subprocess.run([JAVASCRIPT.command[0], "--check", "example.mjs"], cwd=tmp_path, capture_output=True)
    assert checked.returncode == 0, checked.stderr.decode()
    assert len(JAVASCRIPT.blocks) == len(PYTHON.blocks) - 1, "one in Python sends a clip by the same function"

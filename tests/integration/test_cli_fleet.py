"""`up`, `worker`, `status` and `pipelines` as a person meets them: real processes, a real broker."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from pipelines.server import EmbeddedServer
from schemas.errors import ExitCode
from tests.cli import Running, rigflow, rigflow_process
from tests.clips import real_clip
from tests.rig import alive, eventually

GREETED = "Ctrl-C stops it."
PIPELINES = ["fingerprint", "scenes", "upscale2x"]


def up(store: Path, *arguments: str) -> Running:
    """`rigflow up` on any free port."""
    return Running("up", "--store", store, "--port", "0", *arguments)


def url_of(running: Running) -> str:
    """Where the broker of a `rigflow up` is."""
    found = re.search(r"nats://\S+?:\d+", running.until(GREETED))
    assert found is not None
    return found.group()


def status(url: str) -> Any:
    ended = rigflow("status", "--nats", url, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def children(pid: int, marker: str) -> list[int]:
    """Processes started by `pid` whose command line has `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
            command = (entry / "cmdline").read_text() if stat else ""
        except OSError:  # it has ended meanwhile
            continue
        if marker in command and int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry.name))
    return found


def workers_of(pid: int) -> list[int]:
    """Workers of a command; the fork server they come from is its child."""
    return [worker for server in children(pid, "workers.preload") for worker in children(server, "workers.preload")]


def test_ctrl_c_ends_up_with_130_and_nothing_stays_behind(tmp_path: Path) -> None:
    with up(tmp_path / "store", "--workers", "1") as fleet:
        url_of(fleet)
        pid = fleet.process.pid
        eventually(lambda: bool(workers_of(pid)))
        family = workers_of(pid) + children(pid, "nats-server")
        assert len(family) == 2
        assert fleet.end(signal.SIGINT) == ExitCode.INTERRUPTED
    eventually(lambda: not any(map(alive, family)))
    assert "Traceback" not in fleet.output


def test_up_keeps_its_work_starts_again_what_dies_and_drains_on_sigterm(tmp_path: Path) -> None:
    """Work that nobody took is still there after a restart; then broker and worker are killed, and work goes on."""
    with up(tmp_path / "store", "--workers", "0") as fleet:
        published = rigflow("publish", "fingerprint", real_clip("bikes"), "--nats", url_of(fleet))
        assert published.returncode == 0, published.stderr
        scenes = rigflow("pipelines", "show", "scenes").stdout
        (tmp_path / "mine.toml").write_text(scenes.replace('"scenes"', '"mine"', 1))
        mine = rigflow("publish", tmp_path / "mine.toml", real_clip("bikes"), "--job", "mine", "--nats", url_of(fleet))
        assert mine.returncode == 0, mine.stderr
        assert fleet.end(signal.SIGTERM) == ExitCode.OK
    with up(tmp_path / "store", "--workers", "1") as fleet:
        url = url_of(fleet)
        output = fleet.output
        assert f"rigflow is up on {url}, its work kept in {tmp_path / 'store'}" in output
        assert "1 worker, pipelines that the broker knows: fingerprint, mine, scenes, upscale2x\n" in output
        assert f"rigflow run fingerprint FILE --nats {url}" in output
        got = rigflow("results", published.stdout.strip(), "--follow", "--out", tmp_path / "first", "--nats", url)
        assert got.returncode == 0, got.stderr
        assert (tmp_path / "first" / "bikes.fingerprint.npz").exists()
        (worker,) = workers_of(fleet.process.pid)
        (server,) = children(fleet.process.pid, "nats-server")
        os.kill(server, signal.SIGKILL)
        fleet.until("the embedded broker died, starting it again on its store")
        os.kill(worker, signal.SIGKILL)
        fleet.until("worker local-1 ended (signal SIGKILL), starting it again")
        eventually(lambda: rigflow("status", "--nats", url).returncode == 0)  # the broker is back
        ran = rigflow_process("run", "scenes", real_clip("bikes"), "--nats", url, "--out", tmp_path / "second")
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "second" / "bikes.scenes.jsonl").exists()
        assert fleet.end(signal.SIGTERM) == ExitCode.OK
    assert "stopping" in fleet.output
    assert "Traceback" not in fleet.output


def test_up_says_which_port_is_taken_and_whose_the_store_is(tmp_path: Path, server: EmbeddedServer) -> None:
    port = server.url.rsplit(":", 1)[1]
    taken = rigflow_process("up", "--store", tmp_path / "store", "--port", port)
    assert taken.returncode == ExitCode.BROKER
    assert taken.stderr.startswith(f"rigflow: port {port} is taken: choose another --port")
    locked = rigflow_process("up", "--store", server.store, "--port", "0")
    assert locked.returncode == ExitCode.STORE
    assert f"is locked by another rigflow (pid {os.getpid()})" in locked.stderr


def test_a_store_on_a_full_disk_is_reported_with_what_to_do(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "others").write_bytes(bytes(63 << 20))
    for command in (["run", "fingerprint", real_clip("bikes"), "--out", tmp_path], ["up", "--port", "0"]):
        ended = rigflow_process(*command, "--store", small_disk / "store", "--workers", "1")
        assert ended.returncode == ExitCode.STORE, ended.stderr
        words = r"rigflow: store .*: its disk has [\d.]+ [kM]B free, and .*: free some, or .*\n"
        assert re.fullmatch(words, ended.stderr), ended.stderr
    found = rigflow("doctor", "--store", small_disk / "store")
    assert found.returncode == ExitCode.SOME_FAILED
    assert "rigflow cannot run here: 1 to mend" in found.stdout


def test_a_missing_input_keeps_none_of_the_others_from_its_result(tmp_path: Path) -> None:
    ended = rigflow_process("run", "fingerprint", tmp_path / "no.mp4", real_clip("bikes"), "--out", tmp_path)
    assert ended.returncode == ExitCode.SOME_FAILED
    assert f"{tmp_path}/no.mp4: no such file: check the path" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bikes.fingerprint.npz"]


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no film")
    ended = rigflow_process(
        "run", "fingerprint", tmp_path / "notes.txt", "--out", tmp_path / "a" / "b", "--workers", "1"
    )
    assert ended.returncode == ExitCode.USAGE
    assert "notes.txt: pipeline fingerprint takes video and image, this is text" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_up_joins_a_broker_that_is_there_and_stops_at_once_at_a_second_signal(server: EmbeddedServer) -> None:
    """A worker that is stopped (SIGSTOP) cannot finish: the second signal does not wait 20 s for it."""
    with Running("up", "--nats", server.url, "--workers", "1") as fleet:
        assert url_of(fleet) == server.url
        assert list(status(server.url)["pipelines"]) == PIPELINES
        eventually(lambda: [worker["worker"] for worker in status(server.url)["workers"]] == ["local-1"])
        (worker,) = workers_of(fleet.process.pid)
        os.kill(worker, signal.SIGSTOP)
        fleet.process.send_signal(signal.SIGTERM)
        fleet.until("press Ctrl-C again")
        assert fleet.end(signal.SIGTERM) == ExitCode.OK
    assert "stopped at once" in fleet.output
    assert not alive(worker)
    assert server.alive


def test_up_ends_when_it_cannot_reach_its_own_broker(tmp_path: Path) -> None:
    (tmp_path / "store" / "password").mkdir(parents=True)
    ended = rigflow_process("up", "--store", tmp_path / "store", "--port", "0")
    assert ended.returncode == ExitCode.STORE
    assert f"{tmp_path / 'store' / 'password'}: Is a directory: choose another folder" in ended.stderr


def test_workers_of_some_stages_each_do_the_whole_together(tmp_path: Path, server: EmbeddedServer) -> None:
    first = Running("worker", "--stages", "decode,resize", "--nats", server.url, "--name", "front")
    second = Running("worker", "--stages", "infer,encode", "--nats", server.url, "--name", "back")
    with first, second:
        ran = rigflow("run", "fingerprint", real_clip("bikes"), "--nats", server.url, "--out", tmp_path)
        assert ran.returncode == 0, ran.stderr
        wanted = {"front": (["decode", "resize"], 250, False), "back": (["infer", "encode"], 0, True)}

        def reported() -> dict[str, tuple[list[str], int, bool]]:
            workers = status(server.url)["workers"]  # each reports for itself, now and then
            return {each["worker"]: (each["stages"], each["frames"], each["results"] > 0) for each in workers}

        eventually(lambda: reported() == wanted)
        assert first.end(signal.SIGTERM) == ExitCode.OK
        assert second.end(signal.SIGINT) == ExitCode.OK


def test_a_worker_without_a_broker_ends_at_once() -> None:
    ended = rigflow_process("worker", "--nats", "nats://127.0.0.1:9")
    assert ended.returncode == ExitCode.BROKER
    assert "no broker at nats://127.0.0.1:9" in ended.stderr
    assert "rigflow worker on" not in ended.stderr


def test_status_shows_what_waits_by_priority(tmp_path: Path, server: EmbeddedServer) -> None:
    bare = rigflow("status", "--nats", server.url).stdout
    assert "none yet" in bare
    for priority, flag in (("bulk", []), ("interactive", ["--interactive"])):
        published = rigflow(
            "publish", "fingerprint", real_clip("bikes"), *flag, "--job", priority, "--nats", server.url
        )
        assert published.returncode == 0, published.stderr
    reported = status(server.url)
    (queue,) = [queue for queue in reported["queues"] if queue["stream"]["messages"]]
    assert (queue["pipeline"], queue["stage"]) == ("fingerprint", "decode")
    waiting = {priority: reported["waiting"] for priority, reported in queue["priorities"].items()}
    assert waiting["bulk"] == waiting["interactive"] > 0
    assert queue["stream"]["messages"] == sum(waiting.values())
    assert queue["stream"]["nbytes"] > real_clip("bikes").stat().st_size
    assert 0 < queue["stream"]["oldest_s"] < 60
    shown = rigflow("status", "--nats", server.url).stdout
    assert re.search(rf"fingerprint decode +{waiting['interactive']} +{waiting['bulk']} +0 +[\d.]+ [kM]B", shown)
    assert re.search(r"worker +none", shown)


def test_pipelines_of_a_fleet(server: EmbeddedServer) -> None:
    assert "knows none yet" in rigflow("pipelines", "list", "--nats", server.url).stdout
    unknown = rigflow("pipelines", "show", "scenes", "--nats", server.url)
    assert unknown.returncode == ExitCode.USAGE
    assert "the broker knows no pipeline scenes" in unknown.stderr
    published = rigflow("publish", "scenes", real_clip("bikes"), "--nats", server.url)
    assert published.returncode == 0, published.stderr
    assert "scenes" in rigflow("pipelines", "list", "--nats", server.url).stdout
    shown = rigflow("pipelines", "show", "scenes", "--nats", server.url).stdout
    assert re.match(r"# revision [0-9a-f]{16} at ", shown)
    assert 'name = "scenes"' in shown
    assert "# model shotchange " in shown


def test_ctrl_c_ends_a_run_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Running("run", "upscale2x", real_clip("bigbuckbunny"), "--workers", "1", "--out", out) as run:
        eventually(lambda: bool(workers_of(run.process.pid)))
        family = workers_of(run.process.pid) + children(run.process.pid, "nats-server")
        time.sleep(0.5)  # into the job, where the machine is quick enough
        assert run.end(signal.SIGINT) == ExitCode.INTERRUPTED
    assert run.output.endswith("rigflow: interrupted: cleaning up, once more stops at once\n")
    assert "Traceback" not in run.output
    assert not out.exists()
    eventually(lambda: not any(map(alive, family)))

"""Which files of a watched folder are new and quiet, and what the ledger remembers."""

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.outputs.names import OutputNames, Wanted
from schemas.errors import OutputError, StoreError
from schemas.text import printable
from workers.ledger import Ledger
from workers.watched import Patterns, Quiet, Stamp, content_digest, scan, stamp_of

QUIET_S = 2.0


def stamp(nbytes: int, mtime_ns: int = 0) -> Stamp:
    return Stamp(nbytes=nbytes, mtime_ns=mtime_ns)


LEDGER = ".rigflow-p.db"


def opened(folder: Path, revision: str = "r1") -> Ledger:
    ledger = Ledger(folder / LEDGER, folder, revision)
    ledger.open()
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = opened(tmp_path)
    yield ledger
    ledger.close()


def test_a_file_that_grows_is_waited_for() -> None:
    quiet = Quiet(QUIET_S)
    for second in range(5):
        assert quiet.ready({"a": stamp(second)}, second) == []
    assert quiet.ready({"a": stamp(4)}, 5.5) == []
    assert quiet.ready({"a": stamp(4, 1)}, 5.9) == []  # the same size, but written to
    assert quiet.ready({"a": stamp(4, 1)}, 7.8) == []
    assert quiet.ready({"a": stamp(4, 1)}, 7.9) == ["a"]


def test_a_file_that_went_away_and_came_back_starts_anew() -> None:
    quiet = Quiet(QUIET_S)
    quiet.ready({"a": stamp(1)}, 0)
    assert quiet.ready({}, 1) == []
    assert quiet.ready({"a": stamp(1)}, 2) == []
    assert quiet.ready({"a": stamp(1)}, 4) == ["a"]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1.5), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)),
        max_size=30,
    )
)
def test_ready_means_unchanged_in_every_look_of_the_last_seconds(looks: list[tuple[float, dict[str, int]]]) -> None:
    quiet = Quiet(QUIET_S)
    now_s = 0.0
    history: list[tuple[float, dict[str, int]]] = []
    told_s: dict[str, float] = {}
    for pause_s, sizes in looks:
        now_s += pause_s
        history.append((now_s, sizes))
        for name in quiet.ready({name: stamp(size) for name, size in sizes.items()}, now_s):
            first_s = next(
                then_s for then_s, _ in reversed(history) if now_s - then_s >= QUIET_S
            )  # fails when it was not watched for so long
            assert first_s > told_s.get(name, -1.0)
            assert all(before.get(name) == sizes[name] for then_s, before in history if then_s >= first_s)
            told_s[name] = now_s


def test_scan_sees_files_in_folders_but_nothing_hidden_unfinished_or_of_the_results(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/er/b.jpg", ".hidden", ".git/c", "d.part", "e.TMP", "out/f.npz", "out2/g.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    found = scan(tmp_path, tmp_path / "out").files
    assert sorted(found) == ["a.mp4", "deep/er/b.jpg", "out2/g.mp4"]
    assert found["a.mp4"] == stamp_of(tmp_path / "a.mp4")
    assert found["a.mp4"].nbytes == 4


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        ((), (), ["a.mp4", "cam/B.MP4", "cam/c.jpg", "notes.txt"]),
        (("*.mp4",), (), ["a.mp4", "cam/B.MP4"]),
        (("*.mp4", "*.jpg"), ("B*",), ["a.mp4", "cam/c.jpg"]),
        (("cam/*",), ("*/c.*",), ["cam/B.MP4"]),
        ((), ("[abc].*",), ["notes.txt"]),
        (("[",), (), []),
    ],
)
def test_patterns_choose_files_by_name_or_by_path(
    include: tuple[str, ...], exclude: tuple[str, ...], found: list[str], tmp_path: Path
) -> None:
    for name in ("a.mp4", "cam/B.MP4", "cam/c.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(scan(tmp_path, tmp_path / "out", Patterns(include, exclude)).files) == found


def test_what_is_no_file_of_the_folder_is_left_alone_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "locked").mkdir(parents=True)
    (folder / "good.mp4").write_bytes(b"1234")
    (folder / "inside").symlink_to(folder / "good.mp4")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "fifo.mp4")
    (tmp_path / "in" / os.fsdecode(b"\xff.jpg")).write_bytes(b"1")
    found = scan(folder, tmp_path / "out")
    assert sorted(found.files) == ["good.mp4", "inside"]
    reasons = {printable(name): reason for name, reason in found.skipped.items()}
    assert reasons == {
        "outside": "it is a link out of the folder",
        "zero": "it is a link out of the folder",
        "circle": "Too many levels of symbolic links",
        "fifo.mp4": "it is not a file",
        "\\xff.jpg": "its name is not UTF-8: rename it",
    }
    with pytest.raises(OSError, match="it is not a file"):
        content_digest(folder / "fifo.mp4")


def test_a_watched_folder_that_is_gone_is_reported(tmp_path: Path) -> None:
    assert scan(tmp_path / "gone", tmp_path).skipped == {".": "cannot read it: No such file or directory"}


def test_the_ledger_remembers_over_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.p.npz").touch()
    ledger.claim("a.mp4", "a.p")
    ledger.record("a.mp4", stamp(1, 2), "digest", ("a.p.npz",), ("0.00 to 4.00 s, decode: bad",))
    ledger.all_same({"copy.mp4": (stamp(1, 3), "digest")})
    ledger.close()
    again = opened(tmp_path)
    assert again.knows("a.mp4", stamp(1, 2))
    assert again.knows("copy.mp4", stamp(1, 3))
    assert not again.knows("a.mp4", stamp(1, 4))
    assert not again.knows("b.mp4", stamp(1, 2))
    assert again.target("a.mp4") == "a.p"
    assert (again.owner("a.p"), again.owner("b.p")) == ("a.mp4", "")
    outcome = again.outcome("digest")
    assert outcome is not None
    assert (outcome.name, outcome.files) == ("a.mp4", ("a.p.npz",))
    assert outcome.failures == ("0.00 to 4.00 s, decode: bad",)
    assert again.outcome("another") is None
    again.close()


def test_another_pipeline_a_deleted_result_and_another_file_of_the_same_size_are_news(
    ledger: Ledger, tmp_path: Path
) -> None:
    result, media = tmp_path / "a.p.npz", tmp_path / "a.mp4"
    result.touch()
    media.write_bytes(b"1234")
    os.utime(media, ns=(1, 1))
    before = stamp_of(media)
    assert before is not None
    ledger.record("a.mp4", before, "digest", ("a.p.npz",))
    assert ledger.news({"a.mp4": before}, []) == {}
    (tmp_path / "new").write_bytes(b"5678")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(media)
    after = stamp_of(media)
    assert after is not None
    assert (after.nbytes, after.mtime_ns) == (before.nbytes, before.mtime_ns)
    assert ledger.news({"a.mp4": after}, []) == {"a.mp4": after}
    assert ledger.news({"a.mp4": after}, ["a.mp4"]) == {}
    result.unlink()
    ledger.all_same({"copy.mp4": (stamp(1), "digest")})
    assert ledger.news({"a.mp4": before, "copy.mp4": stamp(1)}, []) == {"a.mp4": before}
    assert ledger.news({"copy.mp4": stamp(1)}, []) == {"copy.mp4": stamp(1)}
    result.touch()
    ledger.close()
    changed = opened(tmp_path, "r2")
    assert changed.news({"a.mp4": before}, []) == {"a.mp4": before}
    changed.close()


def test_a_content_whose_results_were_written_over_is_new_again(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()
    (tmp_path / "b.npz").touch()
    ledger.record("a", stamp(1), "first", ("a.npz",))
    ledger.all_same({"copy of a": (stamp(1), "first")})
    ledger.record("b", stamp(2), "other", ("b.npz",))
    ledger.record("a", stamp(3), "second", ("a.npz",))
    assert ledger.outcome("first") is None
    assert not ledger.knows("copy of a", stamp(1))
    assert ledger.knows("a", stamp(3))
    assert ledger.knows("b", stamp(2))


def test_a_ledger_without_entries_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        empty = Ledger(tmp_path / "ledger.db", tmp_path)
        empty.open()
        empty.close()
        assert list(tmp_path.iterdir()) == []
    empty.open()
    empty.claim("a.mp4", "a.p")
    empty.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_ledger_has_one_writer(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another rigflow writes here"):
        opened(tmp_path)


def test_a_damaged_ledger_is_reported_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("{" * 2000)
    with pytest.raises(OutputError, match="not a ledger of this rigflow: delete it"):
        opened(tmp_path)
    assert (tmp_path / LEDGER).read_text() == "{" * 2000


def test_a_ledger_that_cannot_be_written_keeps_the_old_one(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("a", stamp(1), "digest")
    blocker = sqlite3.connect(tmp_path / LEDGER, isolation_level=None)
    blocker.execute("CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
    with pytest.raises(OutputError, match="the disk is full: free some space, or choose another --out"):
        ledger.record("b", stamp(1), "digest2")
    assert blocker.execute("SELECT name FROM contents").fetchall() == [("a",)]
    blocker.close()
    assert not ledger.knows("b", stamp(1))


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").write_bytes(b"x" * 100_000)
    os.utime(tmp_path / "b", ns=(1, 1))
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * 99_999 + b"y")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")


@pytest.mark.parametrize("special", ["link", "fifo"])
def test_what_another_user_put_in_place_of_the_lock_is_neither_followed_nor_waited_for(
    tmp_path: Path, special: str
) -> None:
    victim, lock = tmp_path / "victim", (tmp_path / LEDGER).with_suffix(".lock")
    victim.write_text("precious")
    if special == "fifo":
        os.mkfifo(lock)
        opened(tmp_path).close()
        return
    lock.symlink_to(victim)
    with pytest.raises(OutputError):
        opened(tmp_path)
    assert victim.read_text() == "precious"


def test_a_ledger_with_rows_that_are_none_is_reported(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        ledger.claim("a.mp4", "a.p")
    with sqlite3.connect(tmp_path / LEDGER) as database:
        database.execute("INSERT INTO contents VALUES ('d', 'a', 'r', '5', '[]', 0)")
    database.close()
    with pytest.raises(OutputError, match="not a ledger of this rigflow"):
        opened(tmp_path)


def test_it_is_closed_while_threads_write_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER, tmp_path)
    ledger.open()

    def write(number: int) -> None:
        ledger.record(f"{number}.mp4", Stamp(1, number), f"digest-{number}", (f"{number}.npz",))

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, number) for number in range(100)]
        writing[0].result()
        ledger.close()
    with pytest.raises(AssertionError):
        write(100)
    again = Ledger(tmp_path / LEDGER, tmp_path)
    again.open()
    written = [again.has(f"{number}.mp4", f"digest-{number}") for number in range(100)]
    again.close()
    assert written == [each.exception() is None for each in writing]


def test_many_threads_write_the_ledger_and_reserve_names(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER, tmp_path)
    ledger.open()

    def one(number: int) -> None:
        wanted = Wanted(folder=tmp_path, name=f"{number}.mp4", pipeline="p")
        target = names.reserve(wanted)
        ledger.claim(f"{number}.mp4", target.name)
        (tmp_path / f"{number}.p.npz").touch()
        ledger.record(f"{number}.mp4", Stamp(1, number), f"digest-{number}", (f"{number}.p.npz",))
        names.release(target)

    with OutputNames(tmp_path) as names, ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(200)))
    ledger.close()
    again = Ledger(tmp_path / LEDGER, tmp_path)
    again.open()
    assert all(again.knows(f"{number}.mp4", Stamp(1, number)) for number in range(200))
    again.record("other.mp4", Stamp(1, 1), "other", ("7.p.npz",))
    assert again.outcome("digest-7") is None, "its result is another's now"
    assert again.outcome("digest-8") is not None
    again.close()

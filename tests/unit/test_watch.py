"""Which files of a watched folder are new and quiet, and what the ledger remembers."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.watch import Ledger, Quiet, Stamp, content_digest, scan, stamp_of
from schemas.errors import OutputError, StoreError

QUIET_S = 2.0


def stamp(nbytes: int, mtime_ns: int = 0) -> Stamp:
    return Stamp(nbytes=nbytes, mtime_ns=mtime_ns)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / ".rigflow-watch-p.json")
    ledger.open()
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
    found = scan(tmp_path, tmp_path / "out")
    assert sorted(found) == ["a.mp4", "deep/er/b.jpg", "out2/g.mp4"]
    assert found["a.mp4"] == stamp_of(tmp_path / "a.mp4")
    assert found["a.mp4"].nbytes == 4


def test_a_watched_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the watched folder is gone"):
        scan(tmp_path / "gone", tmp_path)


def test_the_ledger_remembers_over_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("a.mp4", stamp(1, 2), "digest", ("a.mp4.p.npz",), ("0.00 to 4.00 s, decode: bad",))
    ledger.same("copy.mp4", stamp(1, 3), "digest")
    ledger.close()
    again = Ledger(tmp_path / ".rigflow-watch-p.json")
    again.open()
    assert again.knows("a.mp4", stamp(1, 2))
    assert again.knows("copy.mp4", stamp(1, 3))
    assert not again.knows("a.mp4", stamp(1, 4))
    assert not again.knows("b.mp4", stamp(1, 2))
    outcome = again.outcome("digest")
    assert outcome is not None
    assert (outcome.name, outcome.files) == ("a.mp4", ("a.mp4.p.npz",))
    assert outcome.failures == ("0.00 to 4.00 s, decode: bad",)
    assert again.outcome("another") is None
    again.close()


def test_a_content_whose_results_were_written_over_is_new_again(ledger: Ledger) -> None:
    ledger.record("a", stamp(1), "first", ("a.npz",))
    ledger.same("copy of a", stamp(1), "first")
    ledger.record("b", stamp(2), "other", ("b.npz",))
    ledger.record("a", stamp(3), "second", ("a.npz",))
    assert ledger.outcome("first") is None
    assert not ledger.knows("copy of a", stamp(1))
    assert ledger.knows("a", stamp(3))
    assert ledger.knows("b", stamp(2))


def test_a_ledger_has_one_writer(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another rigflow watch writes here"):
        Ledger(tmp_path / ".rigflow-watch-p.json").open()


def test_a_damaged_ledger_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / ".rigflow-watch-p.json"
    path.write_text("{")
    with pytest.raises(OutputError, match="not a ledger of rigflow watch: delete it"):
        Ledger(path).open()
    assert path.read_text() == "{"


def test_a_ledger_that_cannot_be_written_keeps_the_old_one(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record("a", stamp(1), "digest")
    before = (tmp_path / ".rigflow-watch-p.json").read_bytes()
    in_the_way = f"..rigflow-watch-p.json.{os.getpid()}-{threading.get_native_id()}"
    (tmp_path / in_the_way).mkdir()
    with pytest.raises(OutputError, match="choose another --out"):
        ledger.record("b", stamp(1), "digest2")
    assert (tmp_path / ".rigflow-watch-p.json").read_bytes() == before


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").write_bytes(b"x" * 100_000)
    os.utime(tmp_path / "b", ns=(1, 1))
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * 99_999 + b"y")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")

"""Tables in windows of any width: nothing is lost without a sign, numbers and paths never."""

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cli.jobs import _rows
from cli.status import render
from cli.tables import Given, Rows, list_of, paragraphs, shortened
from cli.tenants import _table as tenants_table
from cli.text import one_line, sentence
from cli.usage import _table
from pipelines.status import FleetStatus
from pipelines.tenant_admin import TenantState
from schemas.jobs import JobRef, JobState, Manifest
from schemas.tenants import Tenant
from schemas.usage import UsageOf, Used
from tests.unit.test_cli_narrow import fleet, worker

NUMBERS = st.integers(0, 10**12).map(lambda number: f"{number:,}")
NAMES = st.text("ab-中文ö", min_size=1, max_size=60)
HUGE = f"{10**15:,}"
CHINESE = "转码农场里名字特别长的一台机器编号零零七"
LONG = "a-machine-whose-name-has-forty-letters-x"


def lines_of(made: object, columns: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=columns).print(made, crop=False)
    return text.getvalue().splitlines()


@given(
    st.lists(st.tuples(NAMES, NAMES, NUMBERS, NUMBERS, st.lists(NAMES, max_size=3)), min_size=1, max_size=6),
    st.integers(30, 200),
)
def test_names_are_shortened_with_a_sign_and_numbers_and_paths_are_whole(
    rows: list[tuple[str, str, str, str, list[str]]], columns: int
) -> None:
    given = [[one_line(name), one_line(text), first, second, paths] for name, text, first, second, paths in rows]
    lines = lines_of(list_of(("name", "text", "first", "second", "files"), given, left=2, named=("name",)), columns)
    shown = "\n".join(lines)
    assert all(title in shown for title in ("name", "text", "first", "second"))
    for row in rows:
        for whole in (*row[2:4], *row[4]):
            assert whole in shown
        for shortens in row[:2]:
            assert shortens in shown or "…" in shown
    longest = max((cell_len(path) for row in rows for path in row[4]), default=0)
    assert max(map(cell_len, lines)) <= max(columns, longest + len("  files "))
    assert all(line == line.rstrip() for line in lines)


@given(st.lists(NAMES, min_size=2, max_size=8, unique=True), st.integers(20, 60))
def test_two_names_never_look_alike(names: list[str], columns: int) -> None:
    made = list_of(("name", "number"), [[one_line(name), "1"] for name in names], left=1, named=("name",))
    if (widths := made._widths(columns - 1)) is not None:
        assert len({shortened(one_line(name), widths[0], middle=True).plain for name in names}) == len(names)


@given(NAMES, st.integers(1, 60))
def test_a_name_keeps_both_ends(name: str, width: int) -> None:
    text = shortened(one_line(name), width, middle=True).plain
    assert cell_len(text) <= width
    head, sign, tail = text.partition("…")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert bool(sign) == (cell_len(name) > width)


def job(name: str, pipeline: str) -> Manifest:
    ref = JobRef(id="0123456789abcdef0123", pipeline=pipeline, revision="0" * 16)
    return Manifest(job=ref, name=name, state=JobState.FAILED, created_s=1.0, segments_done=10**9, failures=10**9)


def used() -> Rows:
    place = UsageOf(tenant="main", day="2026-11-29", key=LONG, pipeline=LONG)
    return _table(["day", "key", "pipeline"], {place: Used(jobs=10**9, frames=10**15, media_s=1e9, tokens=10**12)})


def tenants() -> Rows:
    state = TenantState(media=10**9, media_bytes=10**12, queued=10**9, stored_bytes=10**12, used_s=10**9)
    return tenants_table(
        {LONG: Tenant(jobs=10**6, device_s_a_day=86400 * 99), f"{LONG}2": Tenant()}, {LONG: state, f"{LONG}2": state}
    )


def narrow_fleet(name: str) -> FleetStatus:
    return fleet(worker(name, failures=123456, in_flight=1234567), worker(f"{name}2"), again=1000)


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("name", [LONG, CHINESE], ids=["ascii", "chinese"])
def test_no_line_of_a_command_is_wider_than_its_window(name: str, columns: int) -> None:
    shown = {
        "status": render(narrow_fleet(name), "nats://rig"),
        "jobs": _rows([job(name, "a-pipeline-with-a-long-name")] * 2, 0.0),
        "usage": used(),
        "tenants": tenants(),
    }
    for what, made in shown.items():
        lines = lines_of(made, columns)
        assert max(map(cell_len, lines)) <= columns, (what, lines)
    assert {"day", "key", "jobs", "frames", "media", "computed", "input", "tokens"} <= words(lines_of(used(), columns))
    assert HUGE in "\n".join(lines_of(used(), columns))


def words(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def test_a_row_without_room_for_one_line_is_several() -> None:
    rows: list[list[Given]] = [[one_line("film.mp4"), "123,456,789", ["results/film.a.mp4", "results/film.b.json"]]]
    made = list_of(("file", "frames", "result"), rows, words=("file", "result"), named=("file",), gap=2)
    assert lines_of(made, 80) == [
        "file           frames  result",
        "film.mp4  123,456,789  results/film.a.mp4, results/film.b.json",
    ]
    assert lines_of(made, 50) == [
        "file           frames  result",
        "film.mp4  123,456,789  results/film.a.mp4",
        "                       results/film.b.json",
    ]
    assert lines_of(made, 36) == [
        "file film.mp4, frames 123,456,789",
        "  result results/film.a.mp4",
        "  result results/film.b.json",
    ]


def test_a_table_without_rows_is_its_titles() -> None:
    assert lines_of(list_of(("media", "score"), [], left=1, named=("media",)), 80) == ["media score"]


def test_a_text_behind_labels_is_broken_between_words_alone() -> None:
    path = "/home/me/.local/share/rigflow/a-store-with-a-long-name:"
    made = paragraphs([("ok", "store", f"{path} 45 GB free of 100"), ("note", "decoders", "all")])
    assert lines_of(made, 40) == [
        f"ok    store     {path}",
        "                45 GB free of 100",
        "note  decoders  all",
    ]


@given(st.lists(st.text("ab 中ö", min_size=1, max_size=90), min_size=1, max_size=4), st.integers(24, 200))
def test_a_sentence_goes_on_below_itself_and_loses_no_word(texts: list[str], columns: int) -> None:
    rows = [[f"name-{number}", "yes", sentence(text)] for number, text in enumerate(texts)]
    made = list_of(("pipeline", "ready", "description"), rows, left=3, named=("pipeline",))
    lines = lines_of(made, columns)
    words = " ".join(lines).split()
    for number, text in enumerate(texts):
        assert f"name-{number}" in words
        assert all(words.count(word) >= text.split().count(word) for word in text.split())
    assert "…" not in "".join(lines)
    longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
    assert max(map(cell_len, lines)) <= max(columns, longest + len("pipeline name-0 "))


def test_a_sentence_is_broken_within_its_column_and_in_a_pipe_not_at_all() -> None:
    rows = [["scenes", "video", sentence("shot changes with times and scores, and a contact sheet")]]
    made = list_of(("pipeline", "takes", "description"), rows, left=3, named=("pipeline",))
    assert lines_of(made, 50) == [
        "pipeline takes description",
        "scenes   video shot changes with times and scores,",
        "               and a contact sheet",
    ]
    assert len(lines_of(made, 10_000)) == 2

"""A library: results of embeddings as one table, exact and indexed search, near-duplicates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cli.search import seconds_of
from engines.encoding import Origin, Traced
from engines.library.duplicates import find_duplicates
from engines.library.index import Index, build, opened, path_of
from engines.library.search import Hit, best_of, counts, nearest
from engines.library.spaces import Space
from engines.library.table import FOLDER, up_to_date
from engines.part import Array
from schemas.errors import UsageError
from schemas.media import Item
from tests.cli import rigflow
from tests.unit.outputs_parts import IMAGES, VIDEO, feed, format_of, make_part

WIDTH = 16
RANDOM = np.random.default_rng()


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test has the same random numbers, whatever ran before it."""
    RANDOM.bit_generator.state = np.random.default_rng(4).bit_generator.state


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@dataclass
class Filler:
    """Writes results into a library as the format does."""

    library: Path
    changed_s: int = 1_700_000_000

    def put(self, name: str, rows: Array, sources: Sequence[str] = (), film: str = "", model: str = "clip") -> Path:
        """One result: of images with these sources, or of a film."""
        format_, media = format_of("embeddings"), VIDEO if film else IMAGES
        assembler = format_.assemble(self.library / f"{name}.embed", media)
        assert isinstance(assembler, Traced)
        assembler.set_origin(Origin("r" * 16, {model: f"{model:0<64}"}, tuple(sources) or (film,)))
        items = [] if film else [Item(name=Path(source).name) for source in sources]
        pts = [25 * number for number in range(len(rows))] if film else [0] * len(rows)
        feed(format_, assembler, [make_part(media, {"embedding": rows}, pts, items=items)])
        [path] = assembler.close()
        self.changed_s += 1
        os.utime(path, (self.changed_s, self.changed_s))
        return path


@pytest.fixture
def filler(tmp_path: Path) -> Filler:
    (tmp_path / "library").mkdir()
    return Filler(tmp_path / "library")


def contents(library: Path, model: str = "clip") -> dict[tuple[str, float], bytes]:
    """(media, time) -> vector of all that counts; NaN is -1."""
    with up_to_date(library) as table:
        space = table.spaces.get(f"{model:0<64}")
        if space is None:
            return {}
        times = np.nan_to_num(space.times, nan=-1)
        keys = [(space.names[space.media[row]], float(times[row])) for row in space.live]
        assert len(set(keys)) == len(keys)
        return {key: space.vectors[row].tobytes() for key, row in zip(keys, space.live, strict=True)}


def anew(library: Path, model: str = "clip") -> dict[tuple[str, float], bytes]:
    """`contents` of a library without a table."""
    for path in (library / FOLDER).iterdir():
        path.unlink()
    return contents(library, model)


def test_results_come_change_and_go(filler: Filler) -> None:
    a, b, c = (unit(RANDOM.normal(size=(count, WIDTH))) for count in (3, 2, 4))
    library = filler.library
    filler.put("images", a, ["/m/1.png", "/m/2.png", "/m/3.png"])
    film = filler.put("sub/film", c, film="/m/film.mp4")
    (library / "other.npz").write_bytes(b"no npz")
    np.savez(library / "fingerprint.npz", descriptor=a, times=np.arange(3.0))
    expected = {(f"/m/{n + 1}.png", -1.0): a[n].tobytes() for n in range(3)}
    expected |= {("/m/film.mp4", float(n)): c[n].tobytes() for n in range(4)}
    assert contents(library) == contents(library) == anew(library) == expected
    filler.put("again", b, ["/m/2.png", "/m/4.png"])
    expected |= {("/m/2.png", -1.0): b[0].tobytes(), ("/m/4.png", -1.0): b[1].tobytes()}
    assert contents(library) == expected, "the newest result of a media counts"
    film.unlink()
    expected = {key: value for key, value in expected.items() if key[0] != "/m/film.mp4"}
    assert contents(library) == expected, "what is deleted is not found"
    filler.put("again", a[:2], ["/m/2.png", "/m/4.png"])
    expected |= {("/m/2.png", -1.0): a[0].tobytes(), ("/m/4.png", -1.0): a[1].tobytes()}
    assert contents(library) == expected == anew(library)
    for path in library.glob("*.npz"):
        path.unlink()
    assert contents(library) == {}
    assert not (library / FOLDER).exists()
    np.savez(library / "film.fingerprint.npz", descriptor=a, times=np.zeros(len(a)))
    assert contents(library) == {}
    assert not (library / FOLDER).exists(), "results of other pipelines are nothing to search"


def test_a_table_that_is_damaged_or_cannot_be_kept_is_made_anew(filler: Filler) -> None:
    a = unit(RANDOM.normal(size=(3, WIDTH)))
    library = filler.library
    filler.put("images", a, ["/m/1.png", "/m/2.png", "/m/3.png"])
    expected = contents(library)
    for damage in (b"", b"PK", os.urandom(300)):
        (library / FOLDER / "table.npz").write_bytes(damage)
        assert contents(library) == expected
    [vectors] = (library / FOLDER).glob("*.f32")
    vectors.write_bytes(vectors.read_bytes() + b"1234567")  # of a process that ended before it wrote its table
    filler.put("more", a[:1], ["/m/4.png"])
    assert contents(library) == expected | {("/m/4.png", -1.0): a[0].tobytes()}
    vectors.unlink()
    assert contents(library) == expected | {("/m/4.png", -1.0): a[0].tobytes()}
    for path in (library / FOLDER).iterdir():
        path.unlink()
    (library / FOLDER).rmdir()
    (library / FOLDER).write_text("in the way")
    assert contents(library) == expected | {("/m/4.png", -1.0): a[0].tobytes()}


def plainly(vectors: dict[tuple[str, float], bytes], query: Array, most: int, every: bool) -> list[tuple[str, float]]:
    """The hits by a loop."""
    scores = {key: float(np.frombuffer(vector, np.float32) @ query) for key, vector in vectors.items()}
    best: dict[object, tuple[str, float]] = {}
    for key in scores:
        group = key if every else key[0]
        if group not in best or scores[key] > scores[best[group]]:
            best[group] = key
    return sorted(best.values(), key=lambda key: -scores[key])[:most]


def keys_of(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.media, -1.0 if hit.time_s is None else hit.time_s) for hit in hits]


@pytest.mark.parametrize("every", [False, True])
def test_search_is_that_of_a_loop_and_an_index_only_proposes(filler: Filler, every: bool) -> None:
    rows = unit(RANDOM.normal(size=(60, WIDTH)))
    filler.put("old", rows[40:], [f"/m/{n}.png" for n in range(20)])
    filler.put("images", rows[:20], [f"/m/{n}.png" for n in range(20)])
    filler.put("film", rows[20:40], film="/m/film.mp4")
    everything = contents(filler.library)
    with up_to_date(filler.library) as table:
        [space] = table.spaces.values()
        assert counts(space) == (40, 21)
        index = build(table.folder, space)
        query = unit(RANDOM.normal(size=(1, WIDTH)))[0]
        for most in (1, 5, 100):
            expected = plainly(everything, query, most, every)
            assert keys_of(nearest(space, query, most, every)) == expected
            proposed = best_of(space, index.candidates(space, query, most), most, every)
            assert keys_of(proposed)[:3] == expected[:3]
            exact = {hit.row: hit.score for hit in nearest(space, query, 100, every=True)}
            assert all(hit.score == pytest.approx(exact[hit.row], abs=1e-6) for hit in proposed)


def test_an_index_is_brought_up_to_date_and_rows_that_it_lacks_are_found(filler: Filler) -> None:
    rows = unit(RANDOM.normal(size=(50, WIDTH)))
    filler.put("images", rows[:30], [f"/m/{n}.png" for n in range(30)])
    with up_to_date(filler.library) as table:
        [space] = table.spaces.values()
        assert opened(table.folder, space) is None
        build(table.folder, space)
    filler.put("more", rows[30:], [f"/m/{n}.png" for n in range(30, 50)])
    with up_to_date(filler.library) as table:
        [space] = table.spaces.values()
        index = opened(table.folder, space)
        assert isinstance(index, Index)
        assert index.rows == 30
        for number in (3, 44):
            [hit] = best_of(space, index.candidates(space, rows[number], 1), 1)
            assert (hit.media, round(hit.score, 5)) == (f"/m/{number}.png", 1.0)
        assert build(table.folder, space).rows == 50
        path_of(table.folder, space).write_bytes(b"damaged")
        assert opened(table.folder, space) is None
        assert build(table.folder, space).rows == 50


@pytest.mark.parametrize("indexed", [False, True])
def test_near_duplicates_are_found_and_what_is_only_alike_is_not(filler: Filler, indexed: bool) -> None:
    """Copies of a picture, a film and a still of it; not: two films that share a few pictures, and what is like it."""
    base = unit(RANDOM.normal(size=(40, WIDTH)))

    def near(rows: Array, noise: float) -> Array:
        return unit(rows + RANDOM.normal(size=rows.shape) * noise / WIDTH**0.5)

    filler.put("a", np.concatenate([base[:1], near(base[:1], 0.05), near(base[:1], 0.6)]), ["/m/a", "/m/a2", "/m/like"])
    filler.put("film", base[10:20], film="/m/film")
    filler.put("copy", near(base[10:20], 0.05), film="/m/copy")
    filler.put("shares", np.concatenate([base[10:13], base[20:27]]), film="/m/shares")
    filler.put("still", near(base[15:16], 0.05), ["/m/still"])
    filler.put("alone", base[30:33], ["/m/x", "/m/y", "/m/z"])
    with up_to_date(filler.library) as table:
        [space] = table.spaces.values()
        groups = find_duplicates(space, 0.95, build(table.folder, space) if indexed else None)
        assert [named(space, group.first, [copy.media for copy in group.copies]) for group in groups] == [
            ("/m/copy", {"/m/film", "/m/still"}),
            ("/m/a", {"/m/a2"}),
        ]
        still = next(copy for copy in groups[0].copies if space.names[copy.media] == "/m/still")
        assert (np.isnan(still.time_s), still.original_s) == (True, 5.0)
        assert find_duplicates(space, 1.0) == []


def named(space: Space, first: int, copies: Sequence[int]) -> tuple[str, set[str]]:
    return space.names[first], {space.names[media] for media in copies}


def test_models_are_kept_apart(filler: Filler, tmp_path: Path) -> None:
    rows = unit(RANDOM.normal(size=(4, WIDTH)))
    filler.put("a", rows[:2], ["/m/1.png", "/m/2.png"])
    filler.put("b", rows[2:], ["/m/1.png", "/m/3.png"], model="siglip")
    assert {key[0] for key in contents(filler.library, "siglip")} == {"/m/1.png", "/m/3.png"}
    environment = {"HOME": str(tmp_path)}
    ended = rigflow("search", filler.library, "--duplicates", **environment)
    what = f"{filler.library} has vectors of 2 models, which do not compare"
    assert ended.stderr == f"rigflow: {what}: choose one by --model: clip, siglip\n"
    ended = rigflow("search", filler.library, "--duplicates", "--model", "siglip", **environment)
    assert ended.stdout == ("0 groups of near-duplicates, with 0 copies, among 2 media with 2 pictures, by siglip\n")
    ended = rigflow("search", filler.library, "--duplicates", "--model", "other", **environment)
    assert "has no vectors of a model other: it has those of clip, siglip" in ended.stderr
    ended = rigflow("search", "red", filler.library, "--model", "clip", **environment)
    assert ended.stderr.startswith("rigflow: model clip is missing: ")


def test_what_cannot_be_searched_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for arguments, words in (
        (("red", tmp_path / "none"), "none: no such folder: fill one by `rigflow run embed FILES --out "),
        (("red", tmp_path / "file"), "file: not a folder"),
        (("red", tmp_path / "empty"), "empty has no results of embed: fill one by `rigflow run embed FILES --out "),
        ((tmp_path / "empty",), 'nothing to search for: give "WORDS" and LIBRARY'),
        (("red", tmp_path / "empty", "--duplicates"), "words and --duplicates: one at a time"),
        (("a", "red", tmp_path / "empty"), "put the words in quotes"),
        (("  ", tmp_path / "empty"), "the words are empty"),
        (("red", tmp_path / "empty", "--at", "1:20"), "--at is for a film by --like"),
        ((tmp_path / "empty", "--like", "a.mp4", "--at", "1:2x"), "--at 1:2x: no time: give seconds, or a time as"),
    ):
        ended = rigflow("search", *arguments, HOME=str(tmp_path))
        assert words in ended.stderr
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_too_many_that_are_alike_are_refused(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.library.duplicates._MOST_PAIRS", 3)
    filler.put("a", unit(np.ones((5, WIDTH))), [f"/m/{n}" for n in range(5)])
    with up_to_date(filler.library) as table:
        [space] = table.spaces.values()
        with pytest.raises(UsageError, match="give a higher --similarity"):
            find_duplicates(space, 0.9)


def test_a_time_is_written_as_seconds_or_as_a_clock_shows_it() -> None:
    times = ("83.5", "1:23.5", "1:01:23", "99:00")
    assert [seconds_of(time) for time in times] == [83.5, 83.5, 3683.0, 5940.0]


def test_nothing_is_kept_where_there_never_were_results(tmp_path: Path) -> None:
    assert contents(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []

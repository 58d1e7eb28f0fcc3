"""`cluster`: who belongs together, who is a copy of whom, and what people and programs get to see of it."""

import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.cluster import _pictures, _read
from engines.clusters import Cluster, Member, find_clusters
from engines.outputs.clusters import Shown, html_sheet, picture_sheet, write_clusters
from engines.outputs.thumbnail import thumbnail
from engines.part import Array
from engines.similarity import Descriptors
from schemas.errors import RigflowError, UsageError
from tests.cli import rigflow
from tests.clips import Clip, generated, real_clip, still


def film(seed: int, windows: int = 40) -> Array:
    """Descriptors of another film for each seed, `[N, 64]`."""
    vectors = np.random.default_rng(seed).normal(size=(windows, 64)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def described(vectors: Array) -> Descriptors:
    return Descriptors(vectors, np.arange(len(vectors), dtype=float))


def noisy(vectors: Array, seed: int = 9) -> Array:
    """As a lower bitrate would change them."""
    return vectors + np.random.default_rng(seed).normal(scale=0.01, size=vectors.shape).astype(np.float32)


def groups(clusters: list[Cluster]) -> list[list[int]]:
    return [[member.media for member in cluster.members] for cluster in clusters]


def test_copies_are_found_whatever_their_length() -> None:
    media = [described(film(1)[5:25]), described(film(2)), described(noisy(film(1))), described(film(3, 4))]
    first, *alone = find_clusters(media)
    assert groups([first, *alone]) == [[2, 0], [1], [3]]
    original, copy = first.members
    assert (original.duplicate_of, copy.duplicate_of, copy.offset_s) == (None, 2, 5.0)
    assert copy.similarity == pytest.approx(first.similarity) == pytest.approx(1, abs=0.01)
    assert [cluster.similarity for cluster in alone] == [1.0, 1.0]


def test_alike_is_not_a_copy() -> None:
    half = np.sqrt(0.5, dtype=np.float32)
    media = [
        described(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        for vectors in (film(1), film(1) + half * film(2), film(3))
    ]  # cosine of the first two: 0.82
    clusters = find_clusters(media)
    assert groups(clusters) == [[0, 1], [2]]
    assert not any(member.duplicate_of is not None for cluster in clusters for member in cluster.members)
    assert groups(find_clusters(media, least=0.9)) == [[0], [1], [2]]
    assert find_clusters(media, duplicate=0.7)[0].members[1].duplicate_of == 0


def test_one_result_and_equal_results() -> None:
    assert groups(find_clusters([described(film(1))])) == [[0]]
    for windows in (1, 7):
        (equal,) = find_clusters([described(film(1, windows))] * 4, least=1.0, duplicate=1.0 - 1e-6)
        assert [member.media for member in equal.members] == [0, 1, 2, 3]
        assert [member.duplicate_of for member in equal.members] == [None, 0, 0, 0]
        assert {member.offset_s for member in equal.members} == {0.0}


def test_a_copy_of_a_copy_is_one_of_the_original() -> None:
    media = [described(film(1)[10:20]), described(film(1)[10:30]), described(film(1))]
    (cluster,) = find_clusters(media)
    assert [(member.media, member.duplicate_of) for member in cluster.members] == [(2, None), (0, 2), (1, 2)]


def shown(name: str, size: tuple[int, int] | None = (90, 160)) -> Shown:
    return Shown(name, f"{name}.npz", None if size is None else np.full((*size, 3), 200, np.uint8))


def test_programs_get_a_line_a_cluster_and_people_a_page(tmp_path: Path) -> None:
    media = [shown("<b>film</b>"), shown("copy", (90, 51)), shown("other", None)]
    pair = Cluster((Member(0, 1.0), Member(1, 0.9912345678, duplicate_of=0, offset_s=2.5)), 0.9912345678)
    paths = write_clusters(tmp_path / "out", [pair, Cluster((Member(2, 1.0),), 1.0)], media)
    assert [path.name for path in paths] == ["clusters.jsonl", "clusters.html", "clusters.png"]
    first, second = (json.loads(line) for line in paths[0].read_text().splitlines())
    assert first["cluster"] == 1
    assert first["media"][1] == {
        "name": "copy",
        "result": "copy.npz",
        "similarity": 0.991235,
        "duplicate_of": "<b>film</b>",
        "offset_s": 2.5,
    }
    assert second["media"][0]["duplicate_of"] is None
    page = paths[1].read_text()
    assert "2 clusters of 3 media, 1 near-duplicate" in page
    assert "&lt;b&gt;film&lt;/b&gt;" in page
    assert "<b>film" not in page
    assert "= &lt;b&gt;film&lt;/b&gt; +2.5 s" in page
    assert page.count("<img") == 2
    sheet = picture_sheet([pair, Cluster((Member(2, 1.0),), 1.0)], media)
    bright = (sheet == 200).all(axis=-1)
    assert bright.sum() == 90 * (160 + 51)


@pytest.mark.parametrize("size", [1, 2, 3000])
def test_sheets_of_thousands_stay_small_enough_to_look_at(size: int) -> None:
    numbers = count()
    clusters = [Cluster(tuple(Member(next(numbers), 1.0) for _ in range(size)), 1.0) for _ in range(3000 // size)]
    media = [shown("x", None)] * 3000
    height, width, _ = picture_sheet(clusters, media).shape
    assert height < 14_000
    assert width < 1930
    assert html_sheet(clusters, media).count("<figure") == 3000


def test_a_picture_is_that_of_its_time_and_shape(tmp_path: Path) -> None:
    clip = generated(Clip(size=(72, 128), frames=50))
    early, late = thumbnail(clip, 0.0, (90, 160)), thumbnail(clip, 1.8, (90, 160))
    assert early.shape == late.shape == (90, 160, 3)
    assert np.abs(early.astype(int) - late).mean() > 20  # another scene begins half-way
    assert thumbnail(generated(Clip(size=(72, 128), rotation=90)), 0.0, (90, 160)).shape == (90, 51, 3)
    image = tmp_path / "image.png"
    image.write_bytes(still("png", (48, 64)))
    assert thumbnail(image, 0.0, (90, 160)).shape == (90, 120, 3)
    with pytest.raises(RigflowError):
        thumbnail(Path(__file__), 0.0, (90, 160))


@pytest.mark.parametrize("seconds", [2.0, 2.5, 5940.0, 1e15])
def test_a_time_after_the_end_has_no_picture(tmp_path: Path, seconds: float) -> None:
    clip = generated(Clip(size=(72, 128), frames=50))
    assert thumbnail(clip, 1.99, (90, 160)).shape == (90, 160, 3)
    with pytest.raises(UsageError, match=rf"has no picture at {seconds:.2f} s: it ends at 2.00 s"):
        thumbnail(clip, seconds, (90, 160))
    rare = generated(Clip(size=(16, 16), frames=300, gop=300))  # the end is beyond the frames that are decoded
    with pytest.raises(UsageError, match=r"it ends at 12.00 s"):
        thumbnail(rare, seconds + 12, (90, 160))
    image = tmp_path / "image.png"
    image.write_bytes(still("png", (48, 64)))
    with pytest.raises(UsageError, match="is an image and has no picture at"):
        thumbnail(image, seconds, (90, 160))


def test_the_command_finds_pictures_and_says_what_is_wrong(tmp_path: Path) -> None:
    for name, seed in (("carphone_pristine", 1), ("copy", 1), ("other", 2)):
        np.savez(tmp_path / f"{name}.fingerprint.npz", descriptor=film(seed), times=np.arange(40.0) / 10)
    np.savez(tmp_path / "pictures.npz", descriptor=film(3, 2), names=np.array(["a.jpg", "b.jpg"]))
    results = sorted(tmp_path.glob("*.npz"))
    ended = rigflow("cluster", *results, "--media", real_clip("bikes").parent, "--out", tmp_path / "out")
    assert ended.stdout.splitlines()[0] == "4 clusters of 5 media, 1 near-duplicate"
    assert ended.stderr == "rigflow: no picture for 4 of 5: their files are not in the folder that --media names\n"
    rows = [json.loads(line) for line in (tmp_path / "out" / "clusters.jsonl").read_text().splitlines()]
    assert [[each["name"] for each in row["media"]] for row in rows] == [
        ["carphone_pristine", "copy"],
        ["other"],
        ["a.jpg"],
        ["b.jpg"],
    ]
    np.savez(tmp_path / "other.npz", features=np.ones((3, 2048), np.float32), times=np.arange(3.0))
    np.savez(tmp_path / "nan.npz", features=np.full((3, 8), np.nan, np.float32), times=np.arange(3.0))
    for file, words in (
        ("other.npz", "different lengths, 64 and 2048"),
        ("nan.npz", "not finite"),
        ("no.npz", "No such"),
    ):
        wrong = rigflow("cluster", results[0], tmp_path / file, "--out", tmp_path / "wrong")
        assert wrong.returncode == 2
        assert words in wrong.stderr
        assert wrong.stderr.count("\n") == 1
    assert not (tmp_path / "wrong" / "clusters.png").exists()
    np.savez(empty := tmp_path / "empty.npz", descriptor=np.zeros((0, 64)), names=np.array([], dtype=np.str_))
    ended = rigflow("cluster", results[0], empty)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "1 cluster of 1 media, 0 near-duplicates")
    assert ended.stderr.startswith(f"rigflow: left out: {empty} has no windows")
    assert rigflow("cluster", empty).returncode == 2


def test_pictures_are_found_in_folders_of_the_media_folder(tmp_path: Path) -> None:
    """Of two films of one name each result gets that of its folder."""
    for number, inside in enumerate(("a", "b")):
        for folder in ("results", "media"):
            (tmp_path / folder / inside).mkdir(parents=True)
        image = np.full((40, 60, 3), 250 * number, np.uint8)
        Image.fromarray(image).save(tmp_path / "media" / inside / "x.png")
        np.savez(tmp_path / "results" / inside / "x.fingerprint.npz", descriptor=film(number), times=np.zeros(40))
    described = _read(sorted(tmp_path.glob("results/*/*.npz")))
    shown = _pictures(described, [tmp_path / "media"])
    assert [each.picture is not None and round(float(each.picture.mean())) for each in shown] == [0, 250]

"""What a job is called, by the files it is made of."""

from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engines.media.albums import albums
from engines.media.image import image_items
from engines.media.medium import Input
from engines.media.shared import SharedFolders, located
from pipelines.publish import job_id
from pipelines.registry import builtin_pipeline
from schemas.media import Item
from schemas.wire import Buffer

SPEC = builtin_pipeline("fingerprint")


def job_of(*paths: Path) -> str:
    return job_id(SPEC, [(real, found) for real, found in located(map(str, paths)) if found])


def items_of(paths: list[str], shared: SharedFolders) -> Iterator[tuple[Item, Buffer]]:
    return image_items([Input(Path(path), Path(path).name, path) for path in paths], shared)


def test_a_file_is_the_same_by_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.jpg"
    file.write_bytes(b"x")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "b.jpg").symlink_to(file)
    ways = [file, tmp_path / "linked" / "a.jpg", tmp_path / "b.jpg", tmp_path / "linked" / ".." / "folder" / "a.jpg"]
    assert len({job_of(way) for way in ways}) == 1
    ((items, _),) = albums(items_of([real for real, _ in located(map(str, ways))], SharedFolders(("/",))))
    assert {item.path for item in items} == {str(file.resolve())}
    assert job_of(file) != job_of(file, file)


def test_an_album_travels_as_paths_where_the_workers_see_its_images(tmp_path: Path) -> None:
    paths = [tmp_path / folder / f"{n}.jpg" for n, folder in enumerate(["seen", "seen", "unseen", "seen", "seen2"])]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + bytes(20))
    found = list(albums(items_of([str(path) for path in paths], SharedFolders.of([str(tmp_path / "seen")]))))
    assert [[item.name for item in items] for items, _ in found] == [
        ["0.jpg", "1.jpg"],
        ["2.jpg"],
        ["3.jpg"],
        ["4.jpg"],
    ]
    assert [bool(items[0].path) for items, _ in found] == [True, False, True, False]
    assert [len(buffers) for _, buffers in found] == [0, 1, 0, 1]


def test_a_large_job_has_more_images_in_a_message_and_large_files_have_fewer(tmp_path: Path) -> None:
    def sizes(count: int, nbytes: int, shared: SharedFolders) -> list[int]:
        paths = [str(tmp_path / f"{nbytes}-{n % 8}.jpg") for n in range(count)]
        for path in set(paths):
            Path(path).write_bytes(b"\xff\xd8\xff".ljust(nbytes, b"\0"))
        return [len(items) for items, _ in albums(items_of(paths, shared), count)]

    everything = SharedFolders(("/",))
    assert sizes(24 * 100, 100, everything)[:20] == [100] * 20
    assert sizes(24 * 500, 100, everything)[:80] == [128] * 80
    assert sizes(24 * 70, 90_000, everything)[:20] == [70] * 20
    assert sizes(5, 2 << 20, everything) == [3, 2]
    assert sizes(5, 2 << 20, SharedFolders()) == [2, 2, 1]
    assert sizes(2, 7 << 20, everything) == [1, 1]
    [(items, _)] = albums(items_of([str(tmp_path / "gone.jpg")], everything), 1)
    assert not items[0].error


@given(count=st.integers(1, 6000), shared=st.booleans())
def test_the_last_images_of_a_job_are_for_all_workers(count: int, shared: bool) -> None:
    """Every group has at most a quarter of what is left, but a message is not of fewer than eight without need."""
    path = "/nonexistent/a.jpg" if shared else ""
    items = [(Item(name=str(number), path=path), b"") for number in range(count)]
    groups = [group for group, _ in albums(items, count)]
    assert [item for group in groups for item in group] == [item for item, _ in items]
    left = count
    for group in groups:
        assert len(group) <= max(8, left // 4)
        assert len(group) >= min(8, left)
        left -= len(group)
    assert len(groups) <= count / 64 + 16

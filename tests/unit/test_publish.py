"""What a job is called, by the files it is made of."""

from pathlib import Path

from engines.media.shared import SharedFolders, located
from pipelines.albums import albums
from pipelines.publish import job_id
from pipelines.registry import builtin_pipeline

SPEC = builtin_pipeline("fingerprint")


def job_of(*paths: Path) -> str:
    return job_id(SPEC, [(real, found) for real, found in located(map(str, paths)) if found])


def test_a_file_is_the_same_by_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.jpg"
    file.write_bytes(b"x")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "b.jpg").symlink_to(file)
    ways = [file, tmp_path / "linked" / "a.jpg", tmp_path / "b.jpg", tmp_path / "linked" / ".." / "folder" / "a.jpg"]
    assert len({job_of(way) for way in ways}) == 1
    ((items, _),) = albums([real for real, _ in located(map(str, ways))], ["name"] * 4, SharedFolders(("/",)))
    assert {item.path for item in items} == {str(file.resolve())}
    assert job_of(file) != job_of(file, file)


def test_an_album_travels_as_paths_where_the_workers_see_its_images(tmp_path: Path) -> None:
    paths = [tmp_path / folder / f"{n}.jpg" for n, folder in enumerate(["seen", "seen", "unseen", "seen", "seen2"])]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff" + bytes(20))
    found = list(
        albums([str(path) for path in paths], [path.name for path in paths], SharedFolders.of([str(tmp_path / "seen")]))
    )
    assert [[item.name for item in items] for items, _ in found] == [
        ["0.jpg", "1.jpg"],
        ["2.jpg"],
        ["3.jpg"],
        ["4.jpg"],
    ]
    assert [bool(items[0].path) for items, _ in found] == [True, False, True, False]
    assert [len(buffers) for _, buffers in found] == [0, 1, 0, 1]

"""A message has a worker read images of the folders in its own settings, and no other file."""

import os
from pathlib import Path

import pytest

from engines.device import Host
from engines.media.sniff import formats
from engines.pictures import HostPictures
from schemas.errors import UsageError
from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.segments import Segment
from schemas.settings import Settings, load_settings
from tests.clips import still
from tests.plans import decode_plan
from tests.unit.media_passes import pipeline

REFUSED = "its path is in no folder that this worker shares: add the folder to the worker's setting shared"


def errors_of(paths: list[str], *shared: Path) -> list[str]:
    """What became of images that travel as paths, at a worker with those folders."""
    items = tuple(Item(name=f"{number}.png", path=path) for number, path in enumerate(paths))
    return decoded_by(Host(Settings(shared=tuple(map(str, shared)))), items)


def decoded_by(host: Host, items: tuple[Item, ...]) -> list[str]:
    """The errors of the items of one message."""
    key = Key(job=JobRef(id="job", pipeline="test", revision="0"), segment=0, final=True)
    segment = Segment(key=key, media=MediaInfo(kind="image", timed=False), items=items)
    return [
        item.error
        for part in host.decode(segment, [], decode_plan(pipeline()), HostPictures({}, raw=True))
        for item in part.meta.items
    ]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "shared" / "photo.png"
    path.parent.mkdir()
    path.write_bytes(still("png"))
    return path


def test_a_worker_that_shares_nothing_reads_nothing(photo: Path) -> None:
    assert errors_of([str(photo), "/etc/passwd", "", "/no/such", "a\0b"]) == [REFUSED] * 5


def test_a_worker_reads_what_lies_in_its_folders(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    private = tmp_path / "private" / "photo.png"
    private.write_bytes(still("png"))
    (tmp_path / "shared2").mkdir()
    (tmp_path / "shared2" / "photo.png").write_bytes(still("png"))
    (photo.parent / "out.png").symlink_to(private)
    (photo.parent / "folder").symlink_to(private.parent)
    (photo.parent / "in.png").symlink_to(photo)
    (tmp_path / "private" / "in.png").symlink_to(photo)
    (tmp_path / "link").symlink_to(photo.parent)
    good = [str(photo), str(photo.parent / "in.png"), str(tmp_path / "link" / "photo.png")]
    good.append(str(tmp_path / "private" / "in.png"))
    assert errors_of(good, photo.parent) == [""] * 4
    assert errors_of([str(photo)], tmp_path / "link") == [""]
    bad = [photo.parent / "out.png", photo.parent / "folder" / "photo.png", private, tmp_path / "shared2" / "photo.png"]
    bad += [photo.parent / ".." / "private" / "photo.png", photo.parent]
    assert errors_of(list(map(str, bad)), photo.parent) == [REFUSED] * len(bad)


def test_a_path_that_ends_in_dots_does_not_lead_out_of_a_folder(photo: Path, tmp_path: Path) -> None:
    (photo.parent / "inner").mkdir()
    dots = [f"{photo.parent}{end}" for end in ("/..", "/inner/../..", "/../", "/.", "//..", "/inner/../../photo.png")]
    assert errors_of(dots, photo.parent) == [REFUSED] * len(dots)
    good = [f"{photo.parent}/inner/../photo.png", f"{photo.parent}//photo.png", f"{photo.parent}/./photo.png"]
    assert errors_of(good, photo.parent) == [""] * 3
    assert errors_of([f"{photo.parent}/inner/.."], tmp_path) == [f"cannot read {photo.parent}: a directory"]


def test_a_folder_that_becomes_a_link_out_is_closed_to_the_next_message(photo: Path, tmp_path: Path) -> None:
    host = Host(Settings(shared=(str(photo.parent),)))
    inner = photo.parent / "inner"
    inner.mkdir()
    (inner / "photo.png").write_bytes(still("png"))
    items = tuple(Item(name=name, path=str(inner / name)) for name in ("photo.png", "photo.png"))
    assert decoded_by(host, items) == ["", ""]
    inner.rename(tmp_path / "outside")
    inner.symlink_to(tmp_path / "outside")
    assert decoded_by(host, items) == [REFUSED, REFUSED]


def test_an_item_that_failed_at_its_publisher_keeps_its_error(photo: Path) -> None:
    host = Host(Settings(shared=(str(photo.parent),)))
    assert decoded_by(host, (Item(name="a", error="gone"), Item(name="b", path=str(photo)))) == ["gone", ""]


def test_what_is_no_image_is_an_error_of_its_own(photo: Path, tmp_path: Path) -> None:
    folder = photo.parent
    os.mkfifo(folder / "fifo.png")
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    with (folder / "large.png").open("wb") as file:
        file.write(still("png"))
        file.truncate(1 << 40)
    names = ["fifo.png", "text.png", "empty.png", "sparse.png", "large.png", "none.png", "", "photo.png"]
    assert errors_of([str(folder / name) for name in names], tmp_path) == [
        f"{folder}/fifo.png is no regular file: copy its content to a file",
        f"not an image of a format that rigflow reads: send {formats()}",
        "the file is empty: copy it again",
        f"not an image of a format that rigflow reads: send {formats()}",
        "the file has 1099511627776 bytes, more than 400000000: scale it down or raise the setting max_pixels",
        f"cannot read {folder}/none.png: No such file or directory",
        f"cannot read {folder}: a directory",
        "",
    ]


def test_folders_are_absolute_paths() -> None:
    assert load_settings({}, {"RIGFLOW_SHARED": "/a:/b/c"}).shared == ("/a", "/b/c")
    with pytest.raises(UsageError, match=r"setting shared: .*absolute paths"):
        load_settings({}, {"RIGFLOW_SHARED": "photos"})

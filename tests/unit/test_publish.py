"""What a job is called, by the files it is made of."""

from pathlib import Path

from pipelines.publish import albums, job_id
from pipelines.registry import builtin_pipeline

SPEC = builtin_pipeline("fingerprint")


def test_a_file_is_the_same_by_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.jpg"
    file.write_bytes(b"x")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "b.jpg").symlink_to(file)
    ways = [file, tmp_path / "linked" / "a.jpg", tmp_path / "b.jpg", tmp_path / "linked" / ".." / "folder" / "a.jpg"]
    assert len({job_id(SPEC, [way]) for way in ways}) == 1
    ((items, _),) = albums(ways, ["name"] * 4, shared=True)
    assert {item.path for item in items} == {str(file.resolve())}
    assert job_id(SPEC, [file]) != job_id(SPEC, [file, file])

"""What a command says of jobs that are done."""

from pathlib import Path

from cli.outcomes import kept_remarks
from schemas.jobs import JobRef
from schemas.results import Done
from workers.inputs import JobOutcome


def done(name: str, target: Path, file: str) -> JobOutcome:
    job = JobRef(id=name.replace(".", "-"), pipeline="scenes", revision="r")
    made = Done(job=job, segments=1, frames=1, lost=0, files=(file,))
    (target.parent / file).touch()
    return JobOutcome(name, job, [Path(name)], [name], target, kind="video", done=made)


def test_a_result_beside_an_earlier_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.scenes.jsonl").touch()
    beside = done("film.mp4", tmp_path / "film.mp4.scenes", "film.mp4.scenes.jsonl")
    first = done("other.mp4", tmp_path / "other.scenes", "other.scenes.jsonl")
    failed = JobOutcome("bad.mp4", first.job, [Path("bad.mp4")], ["bad.mp4"])
    [line] = kept_remarks([first, beside, failed])
    assert str(line).startswith("film.mp4: earlier results are kept, beside the new ones; --overwrite")
    assert kept_remarks([first]) == []


def test_two_inputs_of_one_name_are_no_earlier_result(tmp_path: Path) -> None:
    one = done("film.mp4", tmp_path / "film.scenes", "film.scenes.jsonl")
    other = done("film.mkv", tmp_path / "film.mkv.scenes", "film.mkv.scenes.jsonl")
    assert kept_remarks([one, other]) == []

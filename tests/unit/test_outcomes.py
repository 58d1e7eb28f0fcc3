"""What a command says of jobs that are done."""

from pathlib import Path

from cli.outcomes import earlier_remarks
from engines.outputs.names import OutputNames, Wanted
from schemas.jobs import JobRef
from workers.inputs import JobOutcome


def done(names: OutputNames, folder: Path, name: str, content: str) -> JobOutcome:
    """A job whose result has this content."""
    job = JobRef(id=name.replace(".", "-"), pipeline="scenes", revision="r")
    outcome = JobOutcome(name, job, [Path(name)], [name])
    outcome.reserve(names, Wanted(folder, name, "scenes"))
    (made := outcome.target.with_name(f"{outcome.target.name}.jsonl")).write_text(content)
    outcome.compare(names, job.id, [made])
    return outcome


def test_earlier_results_are_named_and_said_to_be_equal_or_kept(tmp_path: Path) -> None:
    (tmp_path / "film.scenes.jsonl").write_text("old")
    (tmp_path / "same.scenes.jsonl").write_text("old")
    with OutputNames(tmp_path) as names:
        beside, equal = (done(names, tmp_path, name, text) for name, text in (("film.mp4", "new"), ("same.mp4", "old")))
        first = done(names, tmp_path, "other.mp4", "new")
    failed = JobOutcome("bad.mp4", first.job, [Path("bad.mp4")], ["bad.mp4"])
    lines = [*map(str, earlier_remarks([first, beside, equal, equal, failed]))]
    assert lines == [
        "same.mp4 and 1 more: equal results were there, and are kept",
        "film.mp4: other results were there, and are kept; the new ones are beside them; --overwrite replaces them",
    ]
    assert earlier_remarks([first]) == []
    beside.compare(names, beside.job.id, [])
    assert earlier_remarks([beside]) == [], "what made no file is beside nothing"


def test_two_inputs_of_one_name_are_no_earlier_result(tmp_path: Path) -> None:
    with OutputNames(tmp_path) as names:
        assert earlier_remarks([done(names, tmp_path, f"film.{end}", end) for end in ("mp4", "mkv")]) == []

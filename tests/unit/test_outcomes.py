"""What a command says of jobs that are done."""

from pathlib import Path

from cli.outcomes import earlier_remarks, remarks
from engines.outputs.names import OutputNames, Wanted
from schemas.jobs import JobRef
from schemas.results import Done
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


def test_of_several_inputs_it_is_said_how_many_failed(tmp_path: Path) -> None:
    job = JobRef(id="j", pipeline="scenes", revision="r")
    names = ["a.png", "b: c.png", "d.png"]
    outcome = JobOutcome("3 images", job, [tmp_path / name for name in names], names)

    def said(*failures: str, more: int = 0) -> list[str]:
        outcome.done = Done(job=job, segments=1, frames=1, lost=2, failures=failures, more_failures=more)
        return [*map(str, remarks([outcome]))]

    assert said("b: c.png: broken") == ["1 of 3 images failed: b: c.png: broken"]
    assert said("a.png: broken", "d.png: empty") == ["2 of 3 images failed: a.png: broken", "failed: d.png: empty"]
    assert said("infer: out of memory") == ["3 images: failed: infer: out of memory"], "of a part, which has several"
    outcome.name, outcome.inputs = "9 images", [tmp_path / f"{number}.png" for number in range(9)]
    nine = said(*(f"{number}.png: broken" for number in range(9)))
    assert [nine[0], nine[-1]] == ["9 of 9 images failed: 0.png: broken", "9 images: 4 more failures"]

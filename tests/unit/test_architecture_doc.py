"""docs/architecture.md and its drawing name what there is: streams, buckets, stages, tests."""

import re
from pathlib import Path
from xml.etree import ElementTree

from pipelines.registry import builtin_pipeline
from pipelines.streams import StreamPlan, desired
from schemas.settings import Settings
from schemas.subjects import Names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
DRAWING = (ROOT / "docs" / "architecture.svg").read_text()
SPEC = builtin_pipeline("scenes")


def plans() -> list[StreamPlan]:
    return desired(Names(), Settings(), [SPEC])


def as_written(name: str) -> str:
    """A stream's name, with what depends on the pipeline in angle brackets as on the page."""
    general = name.replace(f"_{SPEC.name}", "_<pipeline>")
    return re.sub(r"(WORK_<pipeline>)_(?!collect$).*", r"\1_<stage>", general)


def rows() -> dict[str, str]:
    """Each stream of the table, and what happens when it is full."""
    return dict(re.findall(r"^\| `((?:RIGFLOW|KV|OBJ)_\S+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))


def test_the_table_has_every_stream_and_no_other() -> None:
    assert rows().keys() == {as_written(plan.name) for plan in plans()}


def test_the_table_says_what_a_full_stream_does() -> None:
    for plan in plans():
        said, limit = rows()[as_written(plan.name)], plan.config["max_bytes"]
        assert ("the oldest go" in said) == (plan.config["discard"] == "old"), plan.name
        assert ("only the store" in said) == (limit < 0), plan.name


def test_the_drawing_is_of_the_same_streams_and_readable_without_colours_of_its_own() -> None:
    texts = [each.text or "" for each in ElementTree.fromstring(DRAWING).iter() if each.tag.endswith("text")]
    words = {word for text in texts for word in text.split()}
    drawn = {word for word in words if word.startswith("RIGFLOW_")}
    known = {as_written(plan.name) for plan in plans()}
    assert drawn - known == {"RIGFLOW_WORK_<pipeline>_decode"}, "the first one of its kind is drawn apart"
    short = {name.partition("_")[2].removeprefix("rigflow_") for name in known if name.startswith(("KV", "OBJ"))}
    assert short <= words
    assert {name.removeprefix("RIGFLOW_") for name in known - drawn if name.startswith("RIGFLOW_")} <= words
    assert "prefers-color-scheme: dark" in DRAWING
    assert {f"{number}" for number in range(1, 10)} <= words, "the steps of the page"
    assert re.findall(r"^(\d)\. ", PAGE, re.MULTILINE) == [f"{number}" for number in range(1, 10)]


def test_the_tests_that_it_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE))
    assert len(named) > 10
    assert named <= {path.name for folder in ("faults", "integration") for path in (ROOT / "tests" / folder).iterdir()}


def test_the_figures_in_it_are_the_defaults() -> None:
    settings = Settings()
    assert f"`ack_wait_s` ({settings.ack_wait_s:g} s)" in PAGE
    assert f"`max_deliver` ({settings.max_deliver})" in PAGE

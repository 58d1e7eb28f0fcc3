"""Templates of --out: where results go, and what is refused before work begins."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.outputs.template import KEEP_TREE, OutTemplate, out_template
from schemas.errors import UsageError

NAMES = st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12), min_size=1, max_size=4)


def target(text: str, name: str) -> str:
    template = out_template(Path(text))
    assert template is not None
    return str(template.root / template.target(name, "scenes"))


@pytest.mark.parametrize(
    ("template", "name", "where"),
    [
        ("results/{stem}.{pipeline}.{ext}", "a/clip.mp4", "results/clip.scenes"),
        ("results/{folder}/{stem}.{ext}", "a/b/clip.mp4", "results/a/b/clip"),
        ("results/{folder}/{stem}.{ext}", "clip.mp4", "results/clip"),
        ("{pipeline}/{name}.{ext}", "clip.tar.mp4", "scenes/clip.tar.mp4"),
        ("out/{suffix}/{stem}.{ext}", "größe.mp4", "out/mp4/größe"),
        ("/abs/{folder}-{stem}.{ext}", "../../x/[abc].mkv", "/abs/x-[abc]"),
    ],
)
def test_where_results_go(template: str, name: str, where: str) -> None:
    assert target(template, name) == where


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out/{frame}.{ext}", "unknown field {frame}: there are {folder}, {name}"),
        ("out/{stem}", "is no template: write it as"),
        ("out/{ext}.{stem}.{ext}", "is no template"),
        ("out/{stem.{ext}", "is no template"),
        ("out/x.{ext}", "has no field of the input"),
    ],
)
def test_what_is_no_template(text: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        out_template(Path(text))
    assert words in str(raised.value)


def test_a_folder_is_no_template_and_the_tree_may_be_kept() -> None:
    assert out_template(Path("results")) is None
    kept = out_template(Path("results"), keep_tree=True)
    assert kept == OutTemplate(Path("results"), KEEP_TREE.removesuffix(".{ext}"))
    with pytest.raises(UsageError, match="beside a template"):
        out_template(Path("{stem}.{ext}"), keep_tree=True)


def test_two_inputs_of_one_path_are_refused_and_named() -> None:
    template = OutTemplate(Path("out"), "{stem}.{pipeline}")
    template.check(["a/clip.mp4", "a/other.mp4", "a/clip.mp4"], "p")
    with pytest.raises(UsageError, match=r"a/clip.mp4 and b/clip.mov would both be written as out/clip.p.\{ext\}: put"):
        template.check(["a/clip.mp4", "b/clip.mov"], "p")


@given(NAMES)
def test_no_name_leads_out_of_the_folder_of_results(names: list[str]) -> None:
    template = OutTemplate(Path("out"), "{folder}/{stem}.{pipeline}")
    made = PurePosixPath(template.target("/".join(names), "p"))
    assert not made.is_absolute()
    assert ".." not in made.parts
    assert made.name.endswith(".p")

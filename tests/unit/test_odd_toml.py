"""Files of declarations with any content: each reader of TOML ends in its own error of one line."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models.catalogue import read_files
from engines.models.store import card_fields
from engines.options import check_options
from schemas.errors import ModelError, PipelineError, RigflowError, UsageError
from schemas.pipeline import MOST_STAGES, parse_pipeline
from schemas.pipeline_check import check_pipeline
from schemas.rig import parse_rig
from schemas.settings import load_settings
from schemas.toml import TomlError, parse_toml
from tests.unit.small_pipelines import pipeline_text

ODD = {
    "nested arrays": b"x = " + b"[" * 5_000,
    "nested tables": b"x = " + b"{a = " * 5_000,
    "a number of 5,000 digits": b"x = " + b"9" * 5_000,
    "Latin-1": b'x = "\xff"',
    "no TOML": b"x =",
}


def _model_card(path: Path) -> object:
    model = path.with_name("m.onnx")
    model.write_bytes(b"never loaded")
    return read_files(model, path)


READERS: dict[str, tuple[Callable[[Path], object], type[RigflowError]]] = {
    "settings": (lambda path: load_settings({}, {}, path), UsageError),
    "model card": (_model_card, ModelError),
    "card of model add": (lambda path: card_fields(path, ["pixels"]), ModelError),
}
READERS_OF_TEXT: dict[str, tuple[Callable[[str], object], type[RigflowError]]] = {
    "pipeline": (lambda text: parse_pipeline(text, "p.toml"), PipelineError),
    "rig": (lambda text: parse_rig(text, "rig.toml"), UsageError),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
def test_a_file_that_is_no_toml(
    read: Callable[[Path], object], error: type[RigflowError], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(error, match="not TOML") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [each for each in ODD.values() if each.isascii()])
@pytest.mark.parametrize(("read", "error"), READERS_OF_TEXT.values(), ids=READERS_OF_TEXT)
def test_a_text_that_is_no_toml(read: Callable[[str], object], error: type[RigflowError], content: bytes) -> None:
    with pytest.raises(error, match="not TOML"):
        read(content.decode())
    assert len(check_pipeline(content.decode(), "p.toml")) == 1
    assert check_options(content.decode(), "p.toml") == []


@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_one_error(content: bytes) -> None:
    with suppress(TomlError):
        assert isinstance(parse_toml(content), dict)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_toml(b"\xef\xbb\xbfx = 1") == parse_toml("\ufeffx = 1") == {"x": 1}


MEDIA = 'media = "video"\n'
STAGES = '[[stage]]\nkind = "decode"\n[[stage]]\nkind = "encode"\nformat = "npz"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("media = 3\n" + STAGES, "media: should be a valid list"),
        ("media = []\n" + STAGES, "name each kind of media once"),
        ('media = ["video", "video"]\n' + STAGES, "name each kind of media once"),
        (MEDIA + "stage = 3\n", "stage: should be a valid list"),
        (MEDIA + "segment_s = nan\n" + STAGES, "segment_s: should be a finite number"),
        (MEDIA + STAGES.replace("format", "options = { x = [inf] }\nformat"), "should be a finite number"),
        (
            MEDIA + '[[stage]]\nkind = "x"\n' * 20_000,
            f"there are 20000 stages, and a pipeline has at most {MOST_STAGES}",
        ),
    ],
)
def test_what_a_pipeline_may_not_say(text: str, words: str) -> None:
    found = [*check_pipeline(f'name = "p"\n{text}', "p.toml"), *check_options(f'name = "p"\n{text}', "p.toml")]
    assert words in str(found[0])


def test_few_of_many_errors_are_reported() -> None:
    unknown = "".join(f"k{number} = 1\n" for number in range(5_000))
    assert len(check_pipeline(unknown, "p.toml")) == 20


def test_a_long_value_is_shown_in_part() -> None:
    text = pipeline_text("", f'size = [8, 12]\nlayout = "{"x" * 1_000_000}"')
    (error,) = check_options(text, "p.toml")
    assert "layout: should be 'rgb'" in str(error)
    assert len(str(error)) < 5_000

"""What was probably meant by a wrong name, at each level of a file; and names in proposed commands are for a shell."""

import re
import shlex
from pathlib import Path

import pytest

from engines.options import check_options
from schemas.errors import ExitCode, UsageError
from schemas.pipeline_check import check_pipeline
from schemas.rig import parse_rig
from schemas.settings import load_settings
from schemas.text import did_you_mean, nearest, shell_word
from tests.cli import rigflow

PIPELINE = """
name = "p"
media = ["video"]

[[stage]]
kind = "decode"
fps = 2.0
window = { frames = 2 }

[[stage]]
kind = "resize"
size = [32, 32]

[[stage]]
kind = "infer"
model = "fingerprint"
max_batch = 4

[[stage]]
kind = "encode"
format = "video"
options = { crf = 20 }
"""
ODD = "a film [1] ü'x.mp4"


@pytest.mark.parametrize(
    ("name", "typo"),
    [
        ("media", "mdia"),
        ("stage", "stages"),
        ("fps", "fp"),
        ("frames", "frame"),
        ("size", "sise"),
        ("max_batch", "max_bach"),
        ("format", "formt"),
        ("crf", "crff"),
        ("resize", "resise"),
        ("infer", "infr"),
        ("video", "vidoe"),
    ],
)
def test_a_typo_at_each_level_of_a_pipeline_proposes_what_was_meant(name: str, typo: str) -> None:
    place = [found.start() for found in re.finditer(rf"\b{name}\b", PIPELINE)][-1 if name == "video" else 0]
    text = PIPELINE[:place] + typo + PIPELINE[place + len(name) :]
    text = text.replace("[[stage]]", "[[stages]]") if name == "stage" else text
    found = [str(error) for error in (*check_pipeline(text, "p.toml"), *check_options(text, "p.toml"))]
    assert any(f"did you mean {name}?" in error for error in found), found


def test_a_file_without_a_typo_proposes_nothing() -> None:
    assert [*check_pipeline(PIPELINE, "p.toml"), *check_options(PIPELINE, "p.toml")] == []


def test_an_option_beside_the_fields_of_encode_says_where_options_stand() -> None:
    text = PIPELINE.replace("options = { crf = 20 }", "crf = 20")
    [error] = [str(error) for error in check_pipeline(text, "p.toml")]
    assert error.endswith("stage.3.crf: unknown field: options of a format stand in `options`, { NAME = VALUE }")


def test_typos_in_settings_and_rigs() -> None:
    with pytest.raises(UsageError, match=r"setting prto: unknown field .*: did you mean port\?"):
        load_settings({}, {"RIGFLOW_PRTO": "1"})
    with pytest.raises(UsageError, match=r"worker.0.devise: unknown field: did you mean device\?"):
        parse_rig('[[worker]]\ndevise = "cpu"\n', "rig.toml")


def test_a_typo_of_an_option_of_the_command_line() -> None:
    for field, meant in (("infer.max_bach", "max_batch"), ("decode.fp", "fps"), ("encode.options.tresh", "threshold")):
        ended = rigflow("run", "scenes", __file__, "--set", f"{field}=1")
        assert (ended.returncode, f"did you mean {meant}?" in ended.stderr) == (ExitCode.USAGE, True), ended.stderr


@pytest.mark.parametrize(
    ("given", "there", "said"),
    [
        ("clips.tml", ("clips.toml",), "clips.tml: no such file: did you mean clips.toml?"),
        ("clips.tml", (), "clips.tml: no such file: check the path; the file of a pipeline ends in .toml"),
        ("clips.TOML", ("clips.TOML",), "clips.TOML: the file of a pipeline ends in .toml: rename it, as clips.toml"),
        ("clips.toml.bak", ("clips.toml",), "clips.toml.bak: no such file: did you mean clips.toml?"),
        ("clps.toml", ("clips.toml",), "clps.toml: No such file or directory: did you mean clips.toml?"),
        ("scenes.toml", (), "scenes.toml: No such file or directory: did you mean scenes?"),
        ("", (), "'' stands where the name of a pipeline belongs: name a pipeline; "),
        (
            ODD,
            (ODD,),
            f"{ODD} stands where the name of a pipeline belongs: the pipeline comes first, as "
            f"`fingerprint {shlex.quote(ODD)}`; ",
        ),
    ],
)
def test_a_wrong_name_of_a_file_of_a_pipeline(
    given: str, there: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*there, "film.mp4"):
        (tmp_path / name).touch()
    ended = rigflow("run", given, "film.mp4")
    assert (ended.returncode, ended.stderr[: len(said) + 9]) == (ExitCode.USAGE, f"rigflow: {said}")


def test_names_in_a_proposed_command_are_words_of_a_shell(tmp_path: Path) -> None:
    (folder := tmp_path / "a 'folder' [1]").mkdir()
    (folder / "film.mp4").touch()
    for words in (
        ("run", folder / "film.mp4"),
        ("watch", "scenes", folder / "film.mp4", "--out", "o"),
        ("search", "red", folder / "none"),
    ):
        ended = rigflow(*words)
        command = ended.stderr.partition("`")[2].partition("`")[0]
        assert str(words[-1] if words[0] != "watch" else words[2]) in shlex.split(command), ended.stderr


def test_what_is_nearest() -> None:
    assert nearest("finger", ["infer", "fingerprint"]) == "fingerprint", "it begins so"
    assert nearest("det", ["detect", "detect-video", "dot"]) == "detect"
    assert (nearest("Scnes", ["scenes", "speak"]), nearest("zzz", ["scenes"]), nearest("x", [])) == ("scenes", "", "")
    assert did_you_mean("scnes", ["scenes"], "there are 2") == "did you mean scenes? there are 2"
    assert did_you_mean("zzz", ["scenes"], "there are 2") == "there are 2"
    assert (shell_word("-x.mp4"), shell_word(Path("a b"))) == ("./-x.mp4", "'a b'")

"""`rigflow simulate`: what it takes, what it says, and that its figures follow from what it was given."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cli.app import answer
from cli.simulate_media import facts_of, times_of
from cli.simulate_rigs import RigOptions, fleet_of, link_of
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode, ItemTooLarge, UsageError
from schemas.settings import Settings
from tests.clips import Clip, make_clip

FLEET = ("--rigs", "2 x P106 x 4, 1 x T4")
FILM = "10min 1080p h264"


def answer_of_app(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = answer([*words])
    return code, out.getvalue(), error.getvalue()


def simulated(*words: str) -> dict[str, Any]:
    code, out, error = answer_of_app("simulate", *FLEET, "--json", *words)
    assert code in (ExitCode.OK, ExitCode.SOME_FAILED), error
    found: dict[str, Any] = json.loads(out)
    return found


def test_rigs_are_read_as_people_write_them() -> None:
    fleet = fleet_of("3 x P106 x 8, 1 x T4, P104 x 2 + GTX 1660, 2 x cpu x 16", RigOptions())
    assert [len(rig.devices) for rig in fleet.rigs] == [8, 8, 8, 1, 3, 1, 1]
    assert [rig.cores for rig in fleet.rigs] == [2, 2, 2, 8, 2, 16, 16]
    first, server = fleet.rigs[0].devices[0], fleet.rigs[3].devices[0]
    assert (first.name, first.profile.link, server.profile.link) == ("rig1-gpu0", "PCIe 1.0 x1", "PCIe 3.0 x16")
    assert fleet.rigs[5].devices[0].workers == 16


@pytest.mark.parametrize(
    ("text", "generation", "lanes"), [("x1", 5, 1), ("3.0 x16", 3, 16), ("PCIe 2 x4", 2, 4), ("own", 0, 0)]
)
def test_links_are_read(text: str, generation: int, lanes: int) -> None:
    assert link_of(text) == (generation, lanes)


def test_a_link_is_never_faster_than_the_card() -> None:
    [rig] = fleet_of("P104", RigOptions(link="4.0 x16")).rigs
    assert rig.devices[0].profile.link == "PCIe 1.0 x16"


@pytest.mark.parametrize(
    "text", ["", " , ", "3 x", "0 x P106", "P106 x 0", "P106 x 65", "99999 x T4", "Voodoo 2", "P106 x 8 x 4", "x" * 999]
)
def test_rigs_that_are_none_are_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError) as error:
        fleet_of(text, RigOptions())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "seconds", "width", "codec"),
    [
        ("2h 1080p h264", 7200, 1920, "h264"),
        ("1h30min hevc 4k", 5400, 3840, "hevc"),
        ("45s 640x360 av1 30fps 2mbit", 45, 640, "av1"),
    ],
)
def test_films_in_words(text: str, seconds: float, width: int, codec: str) -> None:
    facts = facts_of(text, builtin_pipeline("fingerprint"), Settings())
    assert (facts.media.duration_s, facts.media.width, facts.media.codec) == (seconds, width, codec)
    assert facts.pieces >= 1
    assert facts.nbytes > 0


@pytest.mark.parametrize("text", ["1080p", "2h 1080p flv", "0s", "h", "2h 0fps", "2h 00x00"])
def test_films_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--job"):
        facts_of(text, builtin_pipeline("fingerprint"), Settings())


def test_counts_of_jobs() -> None:
    assert times_of("film.mp4 x 100") == ("film.mp4", 100)
    assert times_of("2h 1280x720 x 3") == ("2h 1280x720", 3)
    for text in ("film.mp4 x 0", "film.mp4 x 1000000"):
        with pytest.raises(UsageError, match="--job"):
            times_of(text)


def test_a_file_is_split_as_a_publisher_does(tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=48, gop=12))
    answer = simulated("--job", str(clip), "x", "3")
    assert len(answer["jobs"]) == 3
    assert sum(device["segments"] for rig in answer["rigs"] for device in rig["devices"]) == 3 * answer["segments"]


def test_equal_seeds_give_equal_answers_and_twice_the_cards_are_faster() -> None:
    first, again = simulated("--job", FILM, "x", "8"), simulated("--job", f"{FILM} x 8")
    assert first == again
    code, out, _ = answer_of_app("simulate", "--rigs", "4 x P106 x 4, 2 x T4", "--json", "--job", f"{FILM} x 8")
    assert code == ExitCode.OK
    assert json.loads(out)["finish_s"] < 0.7 * first["finish_s"]
    assert first["bottleneck"]["kind"] == "decoder"
    assert not any(device["measured"] for rig in first["rigs"] for device in rig["devices"])


def test_faults_take_longer_and_a_fleet_that_dies_ends_with_a_code() -> None:
    whole = simulated("--job", f"{FILM} x 8")
    broken = simulated("--job", f"{FILM} x 8", "--fault", "rig1 at 2 for 30", "--fault", "rig2-gpu0 at 1")
    assert broken["unfinished"] == 0
    assert broken["finish_s"] > whole["finish_s"]
    ends = [word for name in ("rig1", "rig2", "rig3") for word in ("--fault", f"{name} at 1")]
    code, out, _ = answer_of_app("simulate", *FLEET, "--job", FILM, *ends)
    assert code == ExitCode.SOME_FAILED
    assert "never end" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*FLEET,), "--job is missing"),
        (("--job", FILM), "--rigs and --fleet"),
        ((*FLEET, "--job", FILM, "--fault", "rig9 at 3"), "--fault names 'rig9'"),
        ((*FLEET, "--job", FILM, "--fault", "now"), "is no fault"),
        ((*FLEET, "--job", FILM, "--link", "x3"), "is no link"),
        ((*FLEET, "--job", "missing.mp4"), "missing.mp4"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(words: tuple[str, ...], said: str) -> None:
    code, _, error = answer_of_app("simulate", *words)
    assert code == ExitCode.USAGE
    assert said in error
    assert len(error.strip().splitlines()) <= 2


def test_what_a_file_of_a_fleet_states_is_not_stated_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[[rig]]\nname = 'a'\ncores = 2\n[[rig.card]]\nname = 'P106'")
    code, _, error = answer_of_app("simulate", "--fleet", str(file), "--job", FILM, "--link", "x4")
    assert code == ExitCode.USAGE
    assert "--link, --cores and --network go with --rigs" in error
    nothing = tmp_path / "nothing.toml"
    nothing.write_text("[[rig]]\nname = 'a'\ncores = 2\nworks = false")
    code, _, error = answer_of_app("simulate", "--fleet", str(nothing), "--job", FILM)
    assert code == ExitCode.USAGE
    assert "no rig has a card, or cores that compute" in error
    of_file = answer_of_app("simulate", "--fleet", str(file), "--job", FILM, "--json")[1]
    of_words = answer_of_app("simulate", "--rigs", "P106", "--job", FILM, "--json")[1]
    assert json.loads(of_file)["finish_s"] == json.loads(of_words)["finish_s"]


def test_the_text_has_the_devices_the_bottleneck_and_that_figures_are_published() -> None:
    code, out, _ = answer_of_app("simulate", *FLEET, "--job", f"{FILM} x 8")
    assert code == ExitCode.OK
    for words in ("4 x P106-100", "PCIe 1.0 x1", "Bottleneck: the video decoders of", "published ones, not measured"):
        assert words in out


def test_the_cards_are_listed() -> None:
    code, out, _ = answer_of_app("simulate", "--cards")
    assert code == ExitCode.OK
    assert "P106-100" in out


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        ("9999h", "lasts 35996400 seconds, more than 86400"),
        ("20h 20h", "lasts 144000 seconds, more than 86400"),
        ("1h 99999x99999", "has 99999x99999 pixels, more than 50 million"),
    ],
)
def test_a_film_in_words_has_the_limits_of_a_file(film: str, reason: str) -> None:
    code, out, error = answer_of_app("simulate", *FLEET, "--job", film)
    assert (code, out) == (ItemTooLarge.exit_code, "")
    [line] = error.splitlines()
    assert reason in line
    raised = Settings(max_pixels=10**10, max_duration_s=1e8)
    assert facts_of(film, builtin_pipeline("fingerprint"), raised).media.width > 0

"""What the gateway says, on the page in Chinese: every code of an error, and every sentence about the fleet."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import gateway
import pipelines
import schemas
from gateway.fleet import AWAY_HINT
from gateway.hints import _ROUTES
from gateway.page import page_files
from gateway.problems import code_of_status
from schemas.errors import RigflowError, error_code
from tests.unit import test_bottleneck

CHINESE = re.compile("[\u4e00-\u9fff]")
ENGLISH = re.compile(r"\b(the|is|are|of|and|its?|while|workers?|messages?|oldest|time|bottleneck|frames|models)\b")
NO_ANSWERS = {"http-error", "not-offered"}  # their code is that of their status


def _source() -> str:
    return page_files()["sentences.js"].content.decode()


def _errors() -> dict[str, str]:
    return dict(re.findall(r'^  "([a-z-]+)": "(.+)",$', _source(), re.MULTILINE))


def _sentences() -> list[tuple[str, str]]:
    lines = re.findall(r'^  (\[".*"\]),$', _source(), re.MULTILINE)
    return [(pattern, made) for pattern, made in map(json.loads, lines)]


def _chinese(text: str) -> str | None:
    """What the page makes of a sentence, by the rules of its patterns."""
    for pattern, made in _sentences():
        found = re.fullmatch(pattern, text)
        if found is not None:
            groups = [_chinese(group) or group for group in found.groups()]
            return re.sub(r"\$(\d)", lambda place, groups=groups: groups[int(place[1]) - 1], made)  # type: ignore[misc]
    return None


def _kinds(kind: type[RigflowError]) -> Iterator[type[RigflowError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


def test_every_code_of_an_error_has_a_sentence() -> None:
    for package in (schemas, pipelines, gateway):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    modules = ("schemas.", "pipelines.", "gateway.")
    codes = {error_code(kind) for kind in _kinds(RigflowError) if kind.__module__.startswith(modules)} - NO_ANSWERS
    sources = [path.read_text() for path in Path(gateway.__path__[0]).rglob("*.py")]
    names = {name for source in sources for name in re.findall(r"HTTPStatus\.([A-Z_]+)", source)}
    codes |= {code_of_status(status) for name in names if (status := HTTPStatus[name]) >= 400} | {"unexpected"}
    known = _errors()
    assert len(codes) > 40
    assert codes - known.keys() == set()
    assert all(CHINESE.search(text) for text in known.values())


def test_every_sentence_about_the_fleet_is_said_in_chinese() -> None:
    (cases,) = [
        mark.args[1]
        for test in vars(test_bottleneck).values()
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize" and mark.args[0] == ("now", "output")
    ]
    assert len(cases) > 10
    for _, sentence in cases:
        said = _chinese(sentence)
        assert said is not None, sentence
        assert CHINESE.search(said)
        assert not ENGLISH.search(said), said
        assert sorted(re.findall(r"[\d,.]*\d", said)) == sorted(re.findall(r"[\d,.]*\d", sentence)), said


def test_the_page_says_in_chinese_what_to_do_while_the_broker_is_away() -> None:
    said = _chinese(AWAY_HINT)
    assert said is not None
    assert CHINESE.search(said)
    assert not re.search("[a-z]", said)


def test_a_sentence_that_is_not_known_stays() -> None:
    assert _chinese("A sentence of another kind.") is None


@pytest.mark.parametrize(
    "sentence",
    [
        "the broker knows no job nope",
        "see GET /api/v1/jobs",
        "see GET /api/v1/pipelines",
        "see GET /api/v1/dead-letters",
        "half.jpg: the jpeg image is truncated: copy or download it again",
        "the png image is damaged: export it again",
        "0 to 2.5 s, decode: film.mp4 is a truncated mp4: its index is missing or cut short: copy or download it again",
        "the API key is not known, expired or revoked",
        "API key web is of tenant acme, which is not, or no longer, a tenant of this fleet",
    ],
)
def test_errors_that_people_meet_are_said_in_chinese(sentence: str) -> None:
    said = _chinese(sentence)
    assert said is not None
    assert CHINESE.search(said)
    words = set(re.findall("[a-z]+", said)) - {
        "half",
        "film",
        "jpg",
        "jpeg",
        "png",
        "mp",
        "nope",
        "decode",
        "web",
        "acme",
    }
    assert not words, said


def test_people_are_sent_to_views_of_the_page() -> None:
    """A request is of use to a program alone."""
    [pattern] = re.findall("^const requests = /(.+)/g;$", _source(), re.MULTILINE)
    for _, request in _ROUTES:
        named = re.match(pattern.replace("\\/", "/"), request)
        assert named is not None, request
        assert named[2] in ("jobs", "fleet", "pipelines", "models", "dead-letters", "search")

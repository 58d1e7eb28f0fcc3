"""Errors of the gateway without a fleet: names of parameters, hints for callers by HTTP, and the form of each API."""

import ast
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from gateway.app import create_app  # noqa: E402
from gateway.fetching import fetched  # noqa: E402
from gateway.fleet import _connected  # noqa: E402
from gateway.hints import for_callers  # noqa: E402
from gateway.problems import HttpError, problem_of  # noqa: E402
from schemas.settings import Settings  # noqa: E402

ROOT = Path(__file__).parents[2]
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@asynccontextmanager
async def client(connected: bool = True) -> AsyncIterator[Any]:
    """An app whose broker is never there: what is refused before it is asked."""
    app = create_app(Settings(json_bytes=4096))
    if connected:
        app.dependency_overrides[_connected] = lambda: None
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


def said(answer: Any) -> str:
    """The words of an error, which are in the form of its API."""
    path, body = answer.request.url.path, answer.json()
    if path.startswith("/v1"):
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return str(body["error"]["message"])
    if path.startswith("/v2"):
        assert set(body) == {"error"}
        return str(body["error"])
    assert answer.headers["content-type"] == "application/problem+json"
    return f"{body['detail']}: {body.get('hint', '')}"


@pytest.mark.parametrize(
    ("method", "path", "options", "names"),
    [
        ("GET", "/api/v1/jobs?limt=3", {}, ("`limt`", "`limit`")),
        ("POST", "/api/v1/jobs?pipline=x", {"content": b"x"}, ("`pipline`", "`pipeline`")),
        ("GET", "/api/v1/models?xyz=1", {}, ("`xyz`", "there are none")),
        ("GET", "/v1/models?page=2", {}, ("`page`", "there are none")),
        ("GET", "/v2/models/net?q=1", {}, ("`q`",)),
        ("POST", "/v1/chat/completions", {"json": REQUEST | {"temprature": 1}}, ("`temprature`", "`temperature`")),
        (
            "POST",
            "/v1/chat/completions",
            {"json": {"messages": [{"role": "user", "contnt": "x"}]}},
            ("`messages.0.contnt`", "`messages.0.content`"),
        ),
        (
            "POST",
            "/v1/audio/transcriptions",
            {"data": {"langage": "de"}, "files": {"file": b"x"}},
            ("`langage`", "`language`"),
        ),
        ("POST", "/api/v1/session", {"json": {"key": "k", "kee": 1}}, ("`kee`", "`key`")),
    ],
)
async def test_a_parameter_that_is_not_known_is_named_with_the_nearest(
    method: str, path: str, options: Any, names: tuple[str, ...]
) -> None:
    async with client() as http:
        answer = await http.request(method, path, **options)
    assert answer.status_code == 400, answer.text
    assert all(name in said(answer) for name in names), said(answer)
    if path.startswith("/v1"):
        assert answer.json()["error"]["param"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", '{"messages": [], "model": ', "is no JSON"),
        ("/v1/chat/completions", "[1]", "Content-Type: application/json"),
        ("/v1/chat/completions", '{"messages": []}', "messages: "),
        ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "x"}], "n": 99}', "n: "),
        ("/v1/audio/speech", '{"input": "x", "speed": "fast"}', "speed: "),
        ("/v1/images/generations", '{"prompt": "x", "size": "big"}', "size: "),
    ],
)
async def test_what_is_wrong_is_said_without_the_words_of_the_parser(path: str, body: str, words: str) -> None:
    async with client() as http:
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert words in said(answer)
    assert "Value error" not in answer.text


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("/v1/images/edits", {"data": {"image": "a.png"}}, "image: is no file: send it as a part with a filename"),
        ("/v1/audio/transcriptions", {"data": {"file": "a.wav"}}, "curl does with -F file=@FILE"),
        (
            "/api/v1/jobs?pipeline=x",
            {"files": {"file": (None, "a.mp4")}},
            "the field file is no file: send it as a part",
        ),
        (
            "/v1/images/edits",
            {"files": [("image", ("a", b"x")), ("image", ("b", b"x"))]},
            "the field image is there twice",
        ),
        ("/v1/audio/speech", {"json": {}}, "input: missing"),
        ("/v1/completions", {"json": {"prompt": 5}}, "prompt"),
    ],
)
async def test_what_is_no_file_or_there_twice_is_said(path: str, options: Any, words: str) -> None:
    async with client() as http:
        answer = await http.post(path, **options)
    assert answer.status_code in (400, 422)
    assert words in said(answer)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/speech", "/api/v1/session"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_json_has_a_limit_of_its_own(path: str, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with client() as http:
        body: Any = pieces() if chunked else b" " * 5000
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "4,096 bytes" in said(answer)


@pytest.mark.parametrize("path", ["/v1/models", "/v2/models/net", "/api/v1/jobs"])
async def test_what_nobody_expected_has_the_form_of_its_api(path: str) -> None:
    async with client(connected=False) as http:
        answer = await http.get(path)  # its app never started
    assert answer.status_code == 500
    assert "unexpected AttributeError" in said(answer)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/nothing", "/api/v1/nothing", "/nothing"])
async def test_paths_that_are_not_there_are_said_in_the_form_of_their_api(path: str) -> None:
    async with client() as http:
        answer = await http.get(path)
        assert answer.status_code == 404
        assert said(answer)
        wrong = await http.put("/v1/models")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
        assert said(wrong)


def test_the_description_has_all_apis_and_no_two_requests_of_one_name() -> None:
    described = create_app(Settings()).openapi()  # a warning would be an error
    paths = described["paths"]
    assert {"/api/v1/jobs", "/v1/embeddings", "/v2/models/{name}/infer"} <= set(paths)
    names = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("see `rigflow jobs list`", "see GET /api/v1/jobs"),
        ("wait for it: `rigflow jobs wait j`", "wait for it: GET /api/v1/jobs/j"),
        ("or delete it, `rigflow jobs delete j-1`", "or delete it, DELETE /api/v1/jobs/j-1"),
        ("`rigflow jobs cancel j` or `rigflow results j`", "POST /api/v1/jobs/j/cancel or GET /api/v1/jobs/j/results"),
        ("`rigflow dead show 7 --save FILE`, or drop it", "GET /api/v1/dead-letters/7, or drop it"),
        ("`rigflow model show resnet` says", "GET /api/v1/models/resnet says"),
        ("`rigflow keys api list` shows them", "ask the operator of the fleet: `rigflow keys api list` shows them"),
        ("raise the setting max_pixels", "ask the operator of the fleet to raise the setting max_pixels"),
        (
            "scale it down or raise the setting max_pixels",
            "scale it down or ask the operator of the fleet to raise the setting max_pixels",
        ),
        (
            "send it again when some of it is done, or raise the limit by `rigflow tenants limit`",
            "send it again when some of it is done, or ask the operator of the fleet to raise the limit by `rigflow "
            "tenants limit`",
        ),
        (
            "start one with `rigflow up`, or check the URL of --nats; then try again",
            "ask the operator of the fleet to start one with `rigflow up`, or check the URL of --nats; then try again",
        ),
        ("rigflow runs networks that are ONNX files", "rigflow runs networks that are ONNX files"),
        ("export it: `optimum-cli export onnx --model FOLDER`", "export it: `optimum-cli export onnx --model FOLDER`"),
        ("say which, as in --set STAGE.model=NAME", "say which, as in the parameter set STAGE.model=NAME"),
        ("send formats that it reads", "send formats that it reads"),
    ],
)
def test_hints_name_what_a_caller_can_do(hint: str, shown: str) -> None:
    assert for_callers(hint) == shown


def test_no_hint_of_the_code_leaves_a_caller_with_a_command_alone() -> None:
    texts = {
        node.value
        for room in ("schemas", "engines", "pipelines", "gateway")
        for path in (ROOT / room).rglob("*.py")
        if "rigflow " in path.read_text() or '"--' in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    commands = [text for text in texts if re.search(r"`rigflow [a-z]|(?<![\w-])--[a-z]", text) and "\n" not in text]
    assert len(commands) > 50
    for text in commands:
        shown = for_callers(text)
        left = re.search(r"`rigflow [a-z]|(?<![\w-])--[a-z]", re.sub(r"`(?!rigflow )\S+ [^`]*`", "", shown))
        assert left is None or "ask the operator of the fleet" in shown, shown


@pytest.mark.parametrize(
    ("url", "status", "said_of_it"),
    [
        (
            "quatsch",
            422,
            "the URL is none of http or https with a host: give one as https://a.example/film.mp4",
        ),
        (
            "https://me:secret@a.example/film.mp4",
            422,
            "the URL has a user or a password: leave them out, or send the media itself",
        ),
        (
            "https://a.example/film.mp4",
            403,
            "media are not fetched from a.example:443: send the media itself, or ask the operator of the fleet to "
            "allow this host by the setting url_hosts",
        ),
    ],
)
async def test_a_url_that_is_refused_says_what_its_caller_can_do(url: str, status: int, said_of_it: str) -> None:
    with pytest.raises(HttpError) as refused:
        async with fetched(url, []):
            pass
    problem, _ = problem_of(refused.value)
    assert (problem.status, problem.text) == (status, said_of_it)

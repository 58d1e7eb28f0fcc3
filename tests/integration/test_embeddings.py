"""Vectors of texts and pictures by `/v1/embeddings`, and by the pipeline embed-text: equal to independent ones."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("tokenizers")

from engines.models.catalogue import own_model  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from pipelines.usage import read_usage  # noqa: E402
from pipelines.variants import put_model  # noqa: E402
from tests.cases import arrays, fleets, whole_and_killed  # noqa: E402
from tests.cli import rigflow  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.towers import LENGTH, WIDTH, Array, clip_folder, picture_vector, text_vector  # noqa: E402
from workers.definitions import find_models, register  # noqa: E402

TEXTS = {"a red picture": ["a</w>", "red</w>", "picture</w>"], "blue": ["blue</w>"]}
PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the model `mine`."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        done = rigflow("model", "add", clip_folder(home / "mine"), HOME=str(home))
        assert done.returncode == 0, done.stderr
        yield home


@pytest.fixture(scope="module")
def fleet(home: Path) -> Iterator[Fleet]:
    """A fleet that knows the model, by `embed` alone."""

    async def registered() -> None:
        spec = builtin_pipeline("embed").with_model("mine")
        async with Broker.connected(fleet.settings, "test") as broker:
            await register(broker, fleet.settings, spec, find_models(spec, None))

    with Fleet(ONE_WORKER, home / "cache") as fleet:
        asyncio.run(registered())
        yield fleet


@pytest.fixture(scope="module")
def gateway(fleet: Fleet) -> Iterator[Gateway]:
    with Gateway(fleet.settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def http(gateway: Gateway) -> Iterator[Any]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def picture() -> tuple[Array, bytes]:
    made, body = np.random.default_rng(3).integers(0, 256, (40, 52, 3), np.uint8), io.BytesIO()
    Image.fromarray(made).save(body, "PNG")
    return made, body.getvalue()


def test_vectors_of_texts_and_pictures_are_those_of_the_reference(http: Any) -> None:
    shown, body = picture()
    text, url = base64.b64encode(body).decode(), f"data:image/png;base64,{base64.b64encode(body).decode()}"
    given = [*TEXTS, url, {"image": text}, {"text": "blue"}, {"type": "image_url", "image_url": {"url": url}}]
    found = http.post(PATH, json={"model": "mine", "input": given})
    assert found.status_code == 200, found.text
    answer = found.json()
    assert (answer["object"], answer["model"], set(answer)) == ("list", "mine", {"object", "data", "model", "usage"})
    assert [each["index"] for each in answer["data"]] == list(range(6))
    assert all(set(each) == {"object", "index", "embedding"} for each in answer["data"])
    assert answer["usage"] == {"prompt_tokens": 5 + 3 + 3, "total_tokens": 11}
    of_picture = picture_vector(shown)
    right = [*(text_vector(tokens) for tokens in TEXTS.values()), of_picture, of_picture, text_vector(["blue</w>"])]
    for each, expected in zip(answer["data"], [*right, of_picture], strict=True):
        assert float(np.dot(each["embedding"], expected)) > 0.99995
    whole = http.post(PATH, json={"input": given, "encoding_format": "base64"}).json()
    for each, plain in zip(whole["data"], answer["data"], strict=True):
        exact = np.frombuffer(base64.b64decode(each["embedding"]), "<f4")
        np.testing.assert_array_equal(exact, np.array(plain["embedding"], np.float32))
    alone = http.post(PATH, json={"input": "blue", "model": "text-embedding-3-small", "dimensions": WIDTH}).json()
    assert alone["data"][0]["embedding"] == answer["data"][1]["embedding"] == answer["data"][4]["embedding"]


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"input": "blue", "dimensions": 7}, 400, f"have {WIDTH} numbers"),
        ({"input": [1, 2, 3]}, 400, "numbers of tokens"),
        ({"input": []}, 400, "input has 0 entries"),
        ({"input": ["a"] * 2049}, 400, "input has 2049 entries"),
        ({"input": ["a", ""]}, 400, "input 1: "),
        ({"input": " ".join(["red"] * LENGTH)}, 400, f"more than {LENGTH} tokens"),
        ({"input": ["a", "data:image/png;base64,!!!"]}, 400, "input 1: its picture is no base64"),
        ({"input": [{"image": base64.b64encode(b"no picture").decode()}]}, 400, "input 0: "),
        ({"input": [{"image": "https://a.example/x.png"}]}, 400, "data: URL"),
        ({"input": [{"image": "x", "text": "y"}]}, 400, "input 0 has 2 of"),
        ({"input": "a", "model": "nosuch"}, 404, "the fleet knows no model nosuch: it knows mine"),
        ({"input": "a", "encoding": "base64"}, 400, "did you mean `encoding_format`"),
        ({"model": "mine"}, 400, "input: missing"),
    ],
)
def test_what_is_wrong_is_one_line_in_openais_form(http: Any, given: Any, status: int, words: str) -> None:
    found = http.post(PATH, json=given)
    assert (found.status_code, [*found.json()]) == (status, ["error"]), found.text
    assert words in found.json()["error"]["message"]


def test_tokens_are_counted_and_a_new_model_answers_from_then_on(fleet: Fleet, http: Any) -> None:
    async def tokens() -> int:
        async with Broker.connected(fleet.settings, "test") as broker:
            found = await read_usage(broker, "main", "2020-01-01", "2099-01-01", ["pipeline"])
            return sum(used.tokens for place, used in found.items() if place.pipeline == "embed-text")

    async def update() -> None:
        card, content = own_model("mine")
        async with Broker.connected(fleet.settings, "test") as broker:
            await put_model(broker, card.model_copy(update={"version": "2"}), content)

    before = asyncio.run(tokens())
    first = http.post(PATH, json={"input": "green"}).json()["data"]
    while asyncio.run(tokens()) < before + 3:  # counted after the answer
        time.sleep(0.05)
    asyncio.run(update())
    assert http.post(PATH, json={"input": "green"}).json()["data"] == first
    assert http.get("/api/v1/models/mine").json()["version"] == "2"
    jobs = http.post("/api/v1/jobs?pipeline=embed&name=p.png", content=picture()[1])
    assert jobs.status_code == 201, jobs.text


def test_openais_own_client_embeds(gateway: Gateway) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="text-embedding-3-small", input=list(TEXTS))  # as base64, by itself
        assert [len(each.embedding) for each in found.data] == [WIDTH] * 2
        assert float(np.dot(found.data[1].embedding, text_vector(["blue</w>"]))) > 0.99995
        assert found.usage.total_tokens == 8
        plain = client.embeddings.create(model="mine", input="blue", encoding_format="float").data[0].embedding
        np.testing.assert_array_equal(np.float32(plain), np.float32(found.data[1].embedding))
        with pytest.raises(openai.NotFoundError) as raised:
            client.embeddings.create(model="nosuch", input="a")
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_files_of_texts_become_vectors_in_any_fleet(home: Path, tmp_path: Path) -> None:
    (tmp_path / "words.jsonl").write_text("".join(json.dumps({"text": text, "id": text}) + "\n" for text in TEXTS))
    text = Path(builtin_file()).read_text().replace("clip-vit-base-patch32", "mine")
    (tmp_path / "embed-text.toml").write_text(text)
    with fleets(tmp_path / "cache", (("decode",), ("embed",), ("encode", "split", "collect"))) as started:
        [made] = await started.answers(tmp_path / "embed-text.toml", [tmp_path / "words.jsonl"], tmp_path / "out")
    found = arrays(made)
    assert found["names"].tolist() == list(TEXTS)
    for vector, tokens in zip(found["embedding"], TEXTS.values(), strict=True):
        assert float(np.dot(vector, text_vector(tokens))) > 0.99995


@pytest.mark.slow
def test_killed_workers_change_nothing(home: Path, tmp_path: Path) -> None:
    texts = [f"{colour} picture of {number}" for number in range(40) for colour in ("red", "green", "blue")]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    text = Path(builtin_file()).read_text().replace("clip-vit-base-patch32", "mine")
    (tmp_path / "embed-text.toml").write_text(text)
    inputs = [tmp_path / "words.jsonl"]
    whole_and_killed(tmp_path / "embed-text.toml", inputs, tmp_path / "out", tmp_path / "cache")


def builtin_file() -> str:
    """The path of the definition that comes with rigflow."""
    import pipelines

    return str(Path(pipelines.__path__[0]) / "definitions" / "embed-text.toml")

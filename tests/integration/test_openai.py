"""OpenAI's own client against the gateway: its programs run with another base URL."""

import asyncio
import base64
import io
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from engines.models.catalogue import models_folder, own_model, save_model  # noqa: E402
from engines.models.proposal import propose  # noqa: E402
from engines.models.store import find, new_files  # noqa: E402
from gateway.keys import KeyHolders  # noqa: E402
from pipelines.api_keys import make_key  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from pipelines.usage import read_usage  # noqa: E402
from schemas.api_roles import ApiRole  # noqa: E402
from schemas.pipeline import parse_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cases import drawn, put  # noqa: E402
from tests.convolutions import convolutions, whole  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.listeners import PIPELINE, RATE, add_listeners, sound  # noqa: E402
from tests.sounds import file_of  # noqa: E402
from tests.voices import write_piper  # noqa: E402
from workers.definitions import find_models, register  # noqa: E402

CARD = "[[inputs]]\nname = 'input'\ntile = [40, 32]\noverlap = 4\n[[heads]]\nkind = 'image'\n"
NET = convolutions(4)
VOICE = "tones"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with small networks for `transcribe`, `speak` and `upscale`, and no `chat`."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        add_listeners(folder)
        with new_files() as new:
            found = find(write_piper(folder), new)
            save_model(models_folder(), propose(found.path, found.content, found.name).card(), found.content)
        with Fleet(ONE_WORKER, folder / "cache") as fleet:
            asyncio.run(_register(fleet.settings, folder))
            yield fleet


async def _register(settings: Settings, folder: Path) -> None:
    put(folder, NET, CARD)
    listening = parse_pipeline(PIPELINE.replace('name = "dictate"', 'name = "transcribe"'), "transcribe.toml")
    specs = [listening, builtin_pipeline("speak").with_model(VOICE), builtin_pipeline("upscale").with_model("m")]
    async with Broker.connected(settings, "test") as broker:
        for spec in specs:
            models = {"m": own_model("m", folder)} if spec.name == "upscale" else find_models(spec, None)
            await register(broker, settings, spec, models)


@pytest.fixture(scope="module")
def client(fleet: Fleet) -> Iterator[Any]:
    with Gateway(fleet.settings) as gateway, opened(gateway) as client:
        yield client


def opened(gateway: Gateway, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def test_speech_is_a_file_of_the_wanted_kind(client: Any, tmp_path: Path) -> None:
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="One. Two.", response_format="wav")
    with wave.open(io.BytesIO(spoken.read())) as read:
        seconds = read.getnframes() / read.getframerate()
    assert seconds > 0.3
    raw = client.audio.speech.create(model=VOICE, voice="alloy", input="One. Two.", response_format="pcm").read()
    assert raw == spoken.read()[44:]
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="One.") as response:
        response.stream_to_file(tmp_path / "one.mp3")
    assert (tmp_path / "one.mp3").read_bytes()[:3] in (b"ID3", b"\xff\xfb\x90")
    with pytest.raises(openai.APIStatusError, match="response_format aac is not offered") as raised:
        client.audio.speech.create(model="tts-1", voice="alloy", input="One.", response_format="aac")
    assert raised.value.status_code == 400


def test_a_transcript_in_every_form_and_as_it_comes(client: Any) -> None:
    given = ("talk.wav", file_of(sound(24)[None], RATE), "audio/wav")
    heard = client.audio.transcriptions.create(model="whisper-1", file=given)
    assert len(heard.text.split()) > 6
    plain = client.audio.transcriptions.create(model="paraformer-zh", file=given, response_format="text")
    assert plain.strip() == heard.text
    srt = client.audio.transcriptions.create(model="whisper-1", file=given, response_format="srt")
    assert srt.startswith("1\n00:00:0")
    vtt = client.audio.transcriptions.create(model="whisper-1", file=given, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n")
    long = client.audio.transcriptions.create(
        model="whisper-1", file=given, response_format="verbose_json", timestamp_granularities=["segment", "word"]
    )
    assert long.duration == pytest.approx(24, abs=0.1)
    assert [segment.id for segment in long.segments] == list(range(len(long.segments)))
    assert all(0 <= each.start <= each.end <= 24.1 for each in long.segments)
    events = list(client.audio.transcriptions.create(model="whisper-1", file=given, stream=True))
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == heard.text
    assert "".join(event.delta for event in events[:-1]) == heard.text
    with pytest.raises(openai.BadRequestError, match=r"x\.wav"):
        client.audio.transcriptions.create(model="whisper-1", file=("x.wav", b"no sound at all", "audio/wav"))


async def test_programs_that_are_asynchronous_run_too(client: Any, tmp_path: Path) -> None:
    given = ("talk.wav", file_of(sound(24)[None], RATE), "audio/wav")
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as waiting:
        heard = await waiting.audio.transcriptions.create(model="whisper-1", file=given)
        events = await waiting.audio.transcriptions.create(model="whisper-1", file=given, stream=True)
        assert [event async for event in events][-1].text == heard.text
        speech = waiting.audio.speech.with_streaming_response
        async with speech.create(model="tts-1", voice="alloy", input="One.", response_format="wav") as response:
            await response.stream_to_file(tmp_path / "one.wav")
        assert (tmp_path / "one.wav").read_bytes()[:4] == b"RIFF"
        assert "m" in {model.id async for model in waiting.models.list()}


def test_a_picture_is_enlarged(client: Any) -> None:
    picture, body = drawn((46, 62), 1), io.BytesIO()
    Image.fromarray(picture).save(body, "PNG")
    made = client.images.edit(model="gpt-image-1", image=("a.png", body.getvalue(), "image/png"), prompt="larger")
    answer = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json))).convert("RGB"))
    np.testing.assert_array_equal(answer, whole(NET, picture))


def test_what_is_not_there_is_said_in_the_form_that_the_client_reads(client: Any) -> None:
    assert "paraformer-zh" in {model.id for model in client.models.list()}
    shown = client.models.retrieve("m")
    assert (shown.owned_by, shown.object, shown in list(client.models.list())) == ("rigflow", "model", True)
    assert 0 <= time.time() - shown.created < 3600
    with pytest.raises(openai.NotFoundError, match="the fleet knows no model nosuch") as raised:
        client.audio.speech.create(model="nosuch", voice="alloy", input="One.")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="the broker knows no pipeline chat"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="gpt-4o", messages=[])
    tools: Any = [{"type": "function", "function": {"name": "weather"}}]
    with pytest.raises(openai.APIStatusError, match="tools is not offered") as raised:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], tools=tools)
    assert raised.value.status_code == 400


def test_a_key_says_who_may_do_what_and_is_counted(fleet: Fleet) -> None:
    website, reader = asyncio.run(_keys(fleet.settings))
    with Gateway(fleet.settings, identify=KeyHolders()) as gateway:
        with (
            opened(gateway, "rf_000000000000_wrong") as unknown,
            pytest.raises(openai.AuthenticationError, match="not"),
        ):
            unknown.models.list()
        with httpx.Client(base_url=gateway.url, timeout=60) as http:
            bare = http.get("/v1/models")
            assert (bare.status_code, bare.headers["www-authenticate"][:6]) == (401, "Bearer")
            error = bare.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
        with opened(gateway, reader) as reading, pytest.raises(openai.PermissionDeniedError, match="the role submit"):
            reading.audio.speech.create(model="tts-1", voice="alloy", input="One.")
        with opened(gateway, website) as hasty, pytest.raises(openai.RateLimitError, match="2 requests") as raised:
            [hasty.models.list() for _ in range(10)]
        assert int(raised.value.response.headers["retry-after"]) >= 1
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=website, max_retries=9) as patient:
            patient.audio.speech.create(model="tts-1", voice="alloy", input="A job of the website.")
    assert asyncio.run(_jobs(fleet.settings)) == {"website": 1}


async def _keys(settings: Settings) -> tuple[str, str]:
    async with Broker.connected(settings, "test") as broker:
        roles = [ApiRole.SUBMIT, ApiRole.READ]
        _, website = await make_key(broker, "website", "studio", roles, rate_per_s=2)
        _, reader = await make_key(broker, "reader", "studio", [ApiRole.READ])
    return website, reader


async def _jobs(settings: Settings) -> dict[str | None, int]:
    async with Broker.connected(settings, "test") as broker:
        found = await read_usage(broker, "studio", "2020-01-01", "2099-01-01", ["key"])
    return {place.key: used.jobs for place, used in found.items()}

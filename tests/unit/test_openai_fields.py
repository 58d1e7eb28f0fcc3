"""Each field of OpenAI's package is known to the gateway: offered, without effect, or refused by name."""

from typing import Any

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

from fastapi.routing import APIRoute  # noqa: E402
from openai.types import completion_create_params, image_edit_params, image_generate_params  # noqa: E402
from openai.types.audio import speech_create_params, transcription_create_params, translation_create_params  # noqa: E402
from openai.types.chat import completion_create_params as chat_create_params  # noqa: E402

from gateway.openai import routers  # noqa: E402
from schemas.known_fields import names_of  # noqa: E402

REQUESTS = {
    "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
    "/v1/completions": completion_create_params.CompletionCreateParamsBase,
    "/v1/audio/speech": speech_create_params.SpeechCreateParams,
    "/v1/audio/transcriptions": transcription_create_params.TranscriptionCreateParamsBase,
    "/v1/audio/translations": translation_create_params.TranslationCreateParams,
    "/v1/images/edits": image_edit_params.ImageEditParamsBase,
    "/v1/images/generations": image_generate_params.ImageGenerateParamsBase,
}
# of pictures that move or are drawn with lines, which no model here makes: not known, so refused by name
LEFT_OUT = {"complexity", "frame_count", "frame_duration_ms", "markup", "svg"}


@pytest.mark.parametrize("path", REQUESTS)
def test_every_field_of_the_package_is_known(path: str) -> None:
    [route] = [each for router in routers for each in router.routes if isinstance(each, APIRoute) and each.path == path]
    known = {name.removesuffix("[]") for name in _fields(route)}
    assert set(REQUESTS[path].__annotations__) - LEFT_OUT - known == set()


def _fields(route: Any) -> list[str]:
    model = route.body_field.field_info.annotation
    return names_of(model) + [field.alias for field in route.dependant.body_params]

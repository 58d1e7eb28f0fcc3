"""Objects as server-sent events, as OpenAI's clients read them."""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import Response, StreamingResponse

from gateway.openai.errors import error_body
from gateway.openai.running import ClientGone
from schemas.errors import RigflowError


def streamed(objects: AsyncIterator[dict[str, Any]]) -> Response:
    """Objects as they come. An error that comes late is an event as well."""
    return StreamingResponse(_events(objects), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _events(objects: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for each in objects:
            yield _event(each)
    except ClientGone:
        return
    except RigflowError as error:
        yield _event(error_body(error))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

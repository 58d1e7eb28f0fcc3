"""The routes of KServe v2: health, metadata, configuration, statistics and inference."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version as version_of
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response

from engines.media.segment_data import SegmentData
from engines.media.tensor import TensorMedium
from gateway.callers import Reader, Submitter
from gateway.fleet import Connected
from gateway.kserve.bodies import JSON_LENGTH, Room, body_of, compressed, json_length
from gateway.kserve.models import Models, Served, dense, idle_stages, labels_of
from gateway.kserve.statistics import ModelStatistics
from gateway.kserve.tensors import InferRequest, encode_answer, parse_request
from gateway.leaving import while_there
from gateway.problems import HttpError
from gateway.route import UnpackingRoute, check_json, checked_router
from pipelines.asking import Answered
from pipelines.broker import Broker
from pipelines.variants import model_names
from schemas.errors import UsageError

T = TypeVar("T")
_LARGE_BYTES = 1 << 18
TIMEOUT_S = 300.0  # of a request that names none
_JSON: dict[str, Any] = {"schema": {"type": "object"}}
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {"application/json": _JSON, "application/octet-stream": _BINARY}
_BODY = {
    "requestBody": {"required": True, "content": _CONTENT},
    "responses": {"200": {"description": "The outputs", "content": _CONTENT}},
}


class _Kserve:
    """What the routes share: known models, requests under way, and counts."""

    def __init__(self, broker: Broker) -> None:
        self.models = Models(broker)
        self.room = Room()
        self.statistics: defaultdict[tuple[str, str], ModelStatistics] = defaultdict(ModelStatistics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.kserve = _Kserve(app.state.broker)
    yield


async def _kserve(request: Request, _: Connected) -> _Kserve:
    shared: _Kserve = request.app.state.kserve
    return shared


router = checked_router(UnpackingRoute, prefix="/v2", tags=["kserve"], lifespan=_lifespan)
Shared = Annotated[_Kserve, Depends(_kserve)]


@router.get("/health/live", response_class=Response)
async def live() -> Response:
    """Whether the gateway runs."""
    return Response()


@router.get("/health/ready", response_class=Response)
async def ready(request: Request) -> Response:
    """Whether the gateway reaches its broker."""
    broker: Broker = request.app.state.broker
    return Response(status_code=HTTPStatus.OK if broker.connection.connected else HTTPStatus.SERVICE_UNAVAILABLE)


@router.get("")
async def server(caller: Reader) -> dict[str, Any]:
    """What this server is, and the extensions of the protocol that it has."""
    extensions = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
    return {"name": "rigflow", "version": version_of("rigflow"), "extensions": extensions}


@router.post("/repository/index")
async def index(caller: Reader, broker: Connected) -> list[dict[str, str]]:
    """The models of the fleet, whatever they take."""
    return [
        {"name": name, "version": "1", "state": "READY", "reason": ""} for name in sorted(await model_names(broker))
    ]


@router.get("/models/stats")
@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(caller: Reader, shared: Shared, name: str = "", version: str = "") -> dict[str, Any]:
    """What this gateway answered since it began."""
    if name:
        card = (await shared.models.find(name, version)).card
        known = [(card.name, card.version)]
    else:
        known = sorted(shared.statistics)
    return {"model_stats": [shared.statistics[each].shown(*each) for each in known]}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(name: str, caller: Reader, shared: Shared, version: str = "") -> dict[str, Any]:
    """Inputs and outputs of a model."""
    return (await shared.models.find(name, version)).metadata()


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(name: str, caller: Reader, shared: Shared, version: str = "") -> dict[str, Any]:
    """The configuration of a model, in the fields of Triton's."""
    return (await shared.models.find(name, version)).config()


@router.get("/models/{name}/ready", response_class=Response)
@router.get("/models/{name}/versions/{version}/ready", response_class=Response)
async def model_ready(name: str, caller: Reader, shared: Shared, broker: Connected, version: str = "") -> Response:
    """Whether the fleet knows a model, and has workers that take its requests."""
    missing = await idle_stages(broker, (await shared.models.find(name, version)).spec)
    if missing:
        what = f"no worker takes work of stage {missing[0]}"
        raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, what, "GET /api/v1/fleet shows them; the operator starts one")
    return Response()


@router.post("/models/{name}/infer", response_class=Response, openapi_extra=_BODY)
@router.post("/models/{name}/versions/{version}/infer", response_class=Response, openapi_extra=_BODY)
async def infer(request: Request, name: str, caller: Submitter, shared: Shared, version: str = "") -> Response:
    """Run a model on tensors. A client that goes away cancels its request."""
    served, began_ns = await shared.models.find(name, version), time.monotonic_ns()
    await shared.models.publish(served)
    counts = shared.statistics[served.card.name, served.card.version]
    json_bytes, most_json = json_length(request.headers), request.app.state.settings.json_bytes
    async with body_of(request, shared.room, caller.upload_bytes, most_json if json_bytes is None else 0) as body:
        try:
            check_json(min(json_bytes or 0, len(body)), most_json)
            wanted, segments = await _step(len(body), _asked, body, json_bytes, served)
            timeout_s = _timeout_s(wanted)
            asking = request.app.state.asker.ask(served.spec, segments, caller.tenant, caller.name)
            found = await while_there(request, asking, timeout_s)
            answer_bytes = sum(array.nbytes for each in found for array in each.arrays.values())
            accepted = request.headers.get("accept-encoding", "")
            response = await _step(answer_bytes, _answer, served, wanted, found, accepted)
        except Exception:
            counts.fail.add(time.monotonic_ns() - began_ns)
            raise
    rows = sum(len(each.meta.pts) for each in found)
    counts.answered(rows, time.monotonic_ns() - began_ns, sum(each.meta.computed_s for each in found))
    return response


@router.api_route("/systemsharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/cudasharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/logging", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/trace/setting", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/repository/models/{name}/{load}", methods=["POST"], include_in_schema=False)
@router.api_route("/models/{name}/trace/setting", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/models/{name}/generate", methods=["POST"], include_in_schema=False)
@router.api_route("/models/{name}/generate_stream", methods=["POST"], include_in_schema=False)
@router.api_route("/models/{name}/versions/{version}/generate", methods=["POST"], include_in_schema=False)
@router.api_route("/models/{name}/versions/{version}/generate_stream", methods=["POST"], include_in_schema=False)
async def not_offered(request: Request, caller: Reader) -> Response:
    """What Triton offers beside this: memory that is shared, models that are loaded, traces, logs, generated text."""
    offered = "there are health, models/NAME (ready, config, stats, infer) and repository/index"
    raise HttpError(HTTPStatus.NOT_IMPLEMENTED, f"{request.url.path[:100]} is not offered here", offered)


def _outputs(found: list[Answered]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for each in found for name in each.arrays))
    ragged = {str(name) for each in found for name in each.facts.get("ragged", ())}
    return dense({name: [each.arrays[name] for each in found] for name in names}, ragged)


def _check_parameters(wanted: InferRequest) -> None:
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        if wanted.parameters.get(name):
            raise UsageError(f"parameter {name}: no state is kept between requests", "send the state as an input")


def _timeout_s(wanted: InferRequest) -> float:
    given = wanted.parameters.get("timeout")
    if given is None or given == 0:
        return TIMEOUT_S
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise UsageError("parameter timeout is a number of microseconds")
    return min(TIMEOUT_S * 1e6, given) / 1e6


async def _step(nbytes: int, step: Callable[..., T], *arguments: Any) -> T:
    """Return what a step gives; one on many bytes runs in a thread, so that other requests go on."""
    return step(*arguments) if nbytes < _LARGE_BYTES else await asyncio.to_thread(step, *arguments)


def _asked(body: bytearray, json_bytes: int | None, served: Served) -> tuple[InferRequest, list[SegmentData]]:
    wanted, arrays = parse_request(body, json_bytes)
    _check_parameters(wanted)
    medium = TensorMedium(served.spec.decode)
    return wanted, list(medium.segments_of(wanted.id or "request", medium.checked(arrays)))


def _answer(served: Served, wanted: InferRequest, found: list[Answered], accepted: str) -> Response:
    head = {"model_name": served.card.name, "model_version": served.card.version}
    head |= {"id": wanted.id} if wanted.id is not None else {}
    content, json_bytes = encode_answer(head, _outputs(found), wanted, labels_of(served.card))
    content, headers = compressed(content, accepted)
    if json_bytes is not None:
        headers |= {JSON_LENGTH: str(json_bytes)}
    media_type = "application/json" if json_bytes is None else "application/octet-stream"
    return Response(content, headers=headers, media_type=media_type)

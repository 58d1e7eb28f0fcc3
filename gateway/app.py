"""The app: its routes, one connection to the broker, and how it listens."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from gateway import openai, page, problems, search, sessions
from gateway.api import health, routers
from gateway.api.events import line_of
from gateway.api.thumbnails import Thumbnails
from gateway.callers import Identify, anyone
from gateway.feeds import Feeds
from gateway.keys import KeyHolders
from gateway.kserve import errors as kserve_errors
from gateway.kserve import routes as kserve
from gateway.openai import errors as openai_errors
from gateway.tracing import IncomingTraces
from gateway.vectors import Library
from pipelines.asking import Asker
from pipelines.broker import Broker
from pipelines.job_index import JobIndex
from pipelines.revisions import sweep_regularly
from pipelines.tenants import keep_tenants
from schemas.settings import Settings

API = "/api/v1"
NAME = "rigflow-gateway"  # of the connection
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": problems.Problem, "content": {problems.MEDIA_TYPE: {}}}}
DESCRIPTION = (
    "Send media through the pipelines of a rigflow fleet. Errors are problem details (RFC 9457) with a `hint`. "
    "A request that creates something may have an `Idempotency-Key`: repeated with it, it is done once."
)


def create_app(
    settings: Settings,
    identify: Identify | None = None,
    further: Sequence[APIRouter] = (),
    broker: Broker | None = None,
    origins: Sequence[str] = (),
) -> FastAPI:
    """The gateway of the fleet at `settings.nats`, which it connects to when it starts unless `broker` is connected.

    `identify` gives the caller of a request, for example `KeyHolders`; without it everyone may do everything, so listen
    on the loopback only.
    `further` are routers beside the native API. Pages of the `origins` may use it from a browser.
    """
    app = FastAPI(
        title="rigflow",
        version=version("rigflow"),
        description=DESCRIPTION,
        lifespan=lambda app: _connected(app, settings, identify, broker),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
    )
    app.state.identify = identify or anyone(settings.tenant)
    app.state.settings = settings
    app.state.stop = lambda: None
    problems.install(app, {"/v1": openai_errors.answer, "/v2": kserve_errors.answer})
    if settings.otlp:
        app.add_middleware(IncomingTraces)
    if origins:  # keys are no credentials in the sense of browsers, so that a star allows all headers of an answer
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]
        )
    own = [*((API, router) for router in (*routers, search.router)), ("", health.router), ("", sessions.router)]
    placed = [(prefix, router, ERRORS) for prefix, router in own]
    placed += [("", router, openai_errors.RESPONSES) for router in openai.routers]
    placed += [("", kserve.router, kserve_errors.RESPONSES)]
    placed += [("", router, {}) for router in (page.router, *further)]
    for prefix, router, responses in placed:
        app.include_router(router, prefix=prefix, responses=responses)

    app.state.methods_of = partial(_methods_of, [(prefix, router) for prefix, router, _ in placed])
    return app


@asynccontextmanager
async def _connected(
    app: FastAPI, settings: Settings, identify: Identify | None, broker: Broker | None
) -> AsyncIterator[None]:
    """What requests use, while the app runs."""
    async with nullcontext(broker) if broker else Broker.connected(settings, NAME) as connected:
        app.state.broker, app.state.asker = connected, Asker(connected)
        app.state.jobs, app.state.library, app.state.thumbnails = JobIndex(connected), Library(), Thumbnails()
        feeds, stopping = Feeds(line_of), asyncio.Event()
        app.state.feeds, app.state.stopping = feeds, stopping
        loop = asyncio.get_running_loop()

        def stop() -> None:
            stopping.set()
            feeds.wake()

        app.state.stop = lambda: loop.call_soon_threadsafe(stop)
        helpers = [loop.create_task(each(connected)) for each in (sweep_regularly, keep_tenants)]
        async with identify.following(connected) if isinstance(identify, KeyHolders) else nullcontext():
            yield
            stop()
            await app.state.asker.close()
        for helper in helpers:
            helper.cancel()


def _methods_of(placed: Sequence[tuple[str, APIRouter]], path: str) -> set[str]:
    """The methods that a path has, of all routes of these prefixes and routers."""
    below = ((path.removeprefix(prefix), router.routes) for prefix, router in placed if path.startswith(prefix))
    found = ((rest, route) for rest, routes in below for route in routes if isinstance(route, APIRoute))
    return {method for rest, route in found if route.path_regex.match(rest) for method in route.methods or ()}

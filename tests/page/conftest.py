"""Fixtures of the page's tests: Chromium, a fleet with a gateway, and pages of it that may report no error."""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.page.looking import WIDE

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_core_python")
pytest.importorskip("fastapi")
if shutil.which("chromium") is None:
    pytest.skip("there is no chromium", allow_module_level=True)

from benchmarks.fleet import simulated  # noqa: E402
from engines.models.catalogue import own_model  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from pipelines.server import EmbeddedServer  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cases import put  # noqa: E402
from tests.convolutions import convolutions  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.simulated import models_of  # noqa: E402
from workers.definitions import register  # noqa: E402

T = TypeVar("T")
CARD = "[[inputs]]\nname = 'input'\ntile = [40, 32]\noverlap = 4\n[[heads]]\nkind = 'image'\n"


def in_thread(function: Callable[..., Coroutine[Any, Any, T]], *given: Any) -> T:
    """Run an async function: Playwright has an event loop of its own in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(function(*given))).result()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway of a fleet of two workers with the pipelines simulated and upscale."""
    folder = tmp_path_factory.mktemp("page")
    with Fleet(ONE_WORKER * 2, folder / "cache", pace_ms=40.0) as fleet:
        in_thread(_register, fleet.settings, folder)
        with Gateway(fleet.settings) as gateway:
            yield gateway.url


@pytest.fixture(scope="module")
def bare() -> Iterator[Settings]:
    """A broker that nobody used yet."""
    server = EmbeddedServer()
    server.start()
    yield Settings.model_validate({"nats": server.url})
    server.stop()


async def _register(settings: Settings, folder: Path) -> None:
    put(folder, convolutions(4), CARD)
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, simulated(), models_of(simulated()))
        await register(broker, settings, builtin_pipeline("upscale").with_model("m"), {"m": own_model("m", folder)})


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, with a font for Chinese beside those of the machine."""
    fonts = tmp_path_factory.mktemp("fonts") / "fonts.conf"
    own = Path(str(files("paperang_p2_fonts_cjk"))) / "fonts"
    system = '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
    fonts.write_text(f"<fontconfig>{system}<dir>{own}</dir></fontconfig>")
    environment = {**os.environ, "FONTCONFIG_FILE": str(fonts)}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], env=environment
        )
        yield browser
        browser.close()


@pytest.fixture
def wrong() -> list[str]:
    """Errors of pages: none is there at the end, unless the test takes them out."""
    return []


@pytest.fixture
def opened(browser: Any, wrong: list[str]) -> Iterator[Any]:
    """Open a page of a gateway; called again it is another tab of the same browser."""
    contexts: dict[str, Any] = {}

    def page_of(url: str) -> Any:
        if url not in contexts:
            contexts[url] = browser.new_context(viewport=WIDE, locale="en-GB", base_url=url)
        page = contexts[url].new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        return page

    yield page_of
    for context in contexts.values():
        context.close()
    assert wrong == []


@pytest.fixture
def page(opened: Any, url: str) -> Any:
    """A page of the fleet's gateway."""
    return opened(url)

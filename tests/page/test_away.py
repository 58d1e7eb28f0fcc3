"""What happens around a page: its gateway dies and comes back, a session ends, there are several tabs."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.keys import KeyHolders
from gateway.server import Server, listen
from schemas.settings import Settings
from tests.gateway import Gateway
from tests.page.conftest import in_thread
from tests.page.looking import checked, set_language, settled, until, untranslated

pytestmark = pytest.mark.page


class Restarted:
    """A gateway that is ended and started on the same port."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._port = settings, 0
        self.start()

    def start(self) -> None:
        listening = listen("127.0.0.1", self._port)
        self._port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._server = Server(create_app(self._settings))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([listening])))
        self._thread.start()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.stop()
        self._server.stop()  # at once
        self._thread.join()


async def _jobs(settings: Settings, names: list[str]) -> None:
    from pipelines.broker import Broker
    from pipelines.topology import ensure_topology
    from schemas.jobs import JobState
    from tests.page.made import put_job

    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        for name in names:
            await put_job(broker, name, f"{name}.mp4", JobState.DONE)


def test_a_gateway_that_comes_back_is_used_again_without_a_hand(opened: Any, bare: Any, wrong: list[str]) -> None:
    in_thread(_jobs, bare, ["early-1"])
    gateway = Restarted(bare)
    try:
        page = opened(gateway.url)
        page.goto("/#jobs")
        page.get_by_text("early-1.mp4").wait_for()
        gateway.stop()
        page.get_by_text("The gateway cannot be reached").wait_for(timeout=20_000)
        page.get_by_text("early-1.mp4").wait_for()  # what is known stays
        checked(page, "away")
        page.evaluate("location.hash = 'models'")  # a view that is opened meanwhile
        page.get_by_role("button", name="Try again").wait_for()
        checked(page, "away-view")
        set_language(page, "zh")
        assert untranslated(page) == []
        page.locator("#language").select_option("en")
        in_thread(_jobs, bare, ["late-2"])
        gateway.start()
        page.get_by_role("heading", name="Add a model").wait_for(timeout=30_000)
        assert not page.locator("#away").is_visible()
        page.evaluate("location.hash = 'jobs'")
        page.get_by_text("late-2.mp4").wait_for()
        gateway.stop()
        page.get_by_text("The gateway cannot be reached").wait_for(timeout=20_000)
        in_thread(_jobs, bare, ["later-3"])
        gateway.start()
        page.get_by_text("later-3.mp4").wait_for(timeout=30_000)  # the list that was open goes on
        in_thread(_jobs, bare, ["live-4"])
        page.get_by_text("live-4.mp4").wait_for(timeout=10_000)  # by its events
        page.goto("about:blank")
    finally:
        gateway.stop()
    assert all("ERR_" in text or "503" in text for text in wrong), wrong
    wrong.clear()


async def _key(settings: Settings) -> str:
    from pipelines.api_keys import make_key
    from pipelines.broker import Broker
    from pipelines.topology import ensure_topology
    from schemas.api_roles import ApiRole

    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        return (await make_key(broker, "page", settings.tenant, list(ApiRole)))[1]


def test_a_session_that_ends_asks_for_the_key_once_in_every_tab(
    opened: Any, bare: Any, wrong: list[str], tmp_path: Path
) -> None:
    key = in_thread(_key, bare)
    with Gateway(bare, identify=KeyHolders()) as gateway:
        page = opened(gateway.url)
        page.goto("/#fleet")
        page.get_by_label("API key").wait_for()
        checked(page, "login")
        page.get_by_label("API key").fill("rf_wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        checked(page, "login-wrong")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        page.get_by_text("What the fleet waits for").wait_for()  # the view that was asked for
        other = opened(gateway.url)
        other.goto("/#jobs")
        settled(other)
        other.get_by_role("searchbox").wait_for()
        page.locator("#theme").click()
        until(other, "document.documentElement.dataset.theme === 'dark'")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("API key").wait_for()
        other.evaluate("location.hash = 'fleet'")
        other.get_by_label("API key").fill("half of a k")
        other.wait_for_timeout(2500)  # nothing that goes on in the background wipes what was typed
        assert other.get_by_label("API key").input_value() == "half of a k"
        for each in (page, other):
            each.goto("about:blank")
    assert all("401" in text for text in wrong), wrong
    wrong.clear()

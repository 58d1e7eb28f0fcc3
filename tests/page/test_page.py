"""A person's way through the page, in Chromium: submit, progress, result, cancel, dead letter, retry; and axe.

`make test-page` runs it; PAGE_SHOTS names a folder for its pictures.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_core_python")
pytest.importorskip("fastapi")
if shutil.which("chromium") is None:
    pytest.skip("there is no chromium", allow_module_level=True)

from benchmarks.fleet import simulated  # noqa: E402
from engines.models.catalogue import own_model  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cases import drawn, put  # noqa: E402
from tests.clips import Clip, make_clip  # noqa: E402
from tests.convolutions import convolutions  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.simulated import models_of  # noqa: E402
from workers.definitions import register  # noqa: E402

pytestmark = pytest.mark.page
CARD = "[[inputs]]\nname = 'input'\ntile = [40, 32]\noverlap = 4\n[[heads]]\nkind = 'image'\n"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
AXE = files("axe_core_python").joinpath("axe.min.js").read_text() if playwright else ""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    with Fleet(ONE_WORKER * 2, folder / "cache", pace_ms=40.0) as fleet:
        asyncio.run(_register(fleet.settings, folder))
        with Gateway(fleet.settings) as gateway:
            yield gateway.url


async def _register(settings: Settings, folder: Path) -> None:
    put(folder, convolutions(4), CARD)
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, simulated(), models_of(simulated()))
        await register(broker, settings, builtin_pipeline("upscale").with_model("m"), {"m": own_model("m", folder)})


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Any]:  # after the fleet: Playwright has a loop of its own in this thread
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(viewport=WIDE, locale="en-GB", base_url=url)
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    context.close()
    assert wrong == []


def checked(page: Any, name: str) -> None:
    """axe finds nothing in the page as it is; a picture of it for people."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]] == []
    if folder := os.environ.get("PAGE_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def submitted(page: Any, pipeline: str, *paths: Path) -> None:
    """Submit files by the page, and wait until each is a job."""
    page.goto(f"/#submit/{pipeline}")
    page.locator("#files").set_input_files(paths)
    for path in paths:
        page.get_by_role("link", name=f"{path.name} is job").wait_for()


def test_a_film_is_submitted_followed_and_cancelled(page: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=400))
    page.goto("/")
    page.get_by_text("No jobs yet").wait_for()
    checked(page, "jobs-empty")
    submitted(page, "simulated", clip)
    checked(page, "submit")
    page.get_by_role("link", name=f"{clip.name} is job").click()
    page.get_by_role("progressbar", name="% done").wait_for()
    checked(page, "job-running")
    page.get_by_role("button", name=f"Cancel: {clip.name}").click()
    page.get_by_role("heading", name="Failures").wait_for()
    checked(page, "job-cancelled")


def test_an_enlarged_picture_is_beside_the_one_that_was_sent(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(drawn((90, 120), 3)).save(tmp_path / "small.png")
    submitted(page, "upscale", tmp_path / "small.png")
    page.get_by_role("link", name="small.png is job").click()
    page.get_by_role("slider", name="Share of the picture before").fill("30")
    page.wait_for_function("[...document.images].every((each) => each.complete && each.naturalWidth > 0)")
    widths = page.evaluate("[...document.querySelectorAll('.compare img')].map((each) => each.naturalWidth)")
    assert widths == [240, 120]
    checked(page, "result-compare")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: ").first.click()
    assert Path(download.value.path()).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_failed_is_a_dead_letter_that_is_tried_again_and_dropped(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no film at all")
    submitted(page, "simulated", tmp_path / "broken.mp4")
    page.get_by_role("link", name="broken.mp4 is job").click()
    page.get_by_text("failed", exact=True).wait_for()
    checked(page, "job-failed")
    page.goto("/#dead")
    page.get_by_role("cell", name="broken.mp4").first.wait_for()
    checked(page, "dead-letters")
    page.get_by_role("button", name="Retry").first.click()
    page.get_by_text("No dead letters").wait_for()  # it was sent again, and fails again
    page.goto("/#jobs")
    page.get_by_role("row", name="broken.mp4").get_by_text("failed", exact=True).wait_for()
    checked(page, "jobs")
    page.goto("/#dead")
    page.get_by_role("button", name="Drop").click()
    page.get_by_text("No dead letters").wait_for()


@pytest.mark.parametrize("view", ["jobs", "submit", "fleet", "pipelines", "dead"])
def test_every_view_is_clean_in_the_dark_on_a_phone_and_in_chinese(page: Any, view: str) -> None:
    page.goto(f"/#{view}")
    page.get_by_role("heading", level=1).wait_for()
    page.get_by_text("Loading", exact=True).wait_for(state="detached")
    page.get_by_role("button", name="Dark").click()
    checked(page, f"{view}-dark")
    page.set_viewport_size(PHONE)
    page.get_by_role("combobox", name="Language").select_option("zh")
    page.get_by_role("button", name="浅色").wait_for()
    page.get_by_text("正在载入").wait_for(state="detached")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    checked(page, f"{view}-phone-chinese")


def test_a_worker_is_cordoned_and_resumed(page: Any) -> None:
    page.goto("/#fleet")
    page.get_by_role("button", name="Cordon: test-0").click()
    page.get_by_role("button", name="Resume: test-0").click()
    page.get_by_role("button", name="Cordon: test-0").wait_for()
    checked(page, "fleet")

"""10,000 jobs, and a job with 5,000 files: the page has pages of them, and stays quick to use."""

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.gateway import Gateway
from tests.page.conftest import in_thread
from tests.page.looking import checked, settled

pytestmark = pytest.mark.page
JOBS, FILES = 10_000, 5_000
WATCH = """() => {
  window.longest = 0;
  const kept = (list) => {
    for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration);
  };
  new PerformanceObserver(kept).observe({ type: "longtask" });
}"""


async def _fill(settings: Any) -> None:
    import asyncio

    from pipelines.broker import Broker
    from pipelines.topology import ensure_topology
    from schemas.jobs import JobState
    from tests.page.made import put_file, put_job

    def picture(number: int) -> bytes:
        made = io.BytesIO()
        Image.fromarray(np.full((18, 32, 3), number % 256, np.uint8)).save(made, "png")
        return made.getvalue()

    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        for first in range(0, JOBS, 500):
            rows = range(first, first + 500)
            await asyncio.gather(*(put_job(broker, f"job-{n}", f"film-{n}.mp4", JobState.DONE) for n in rows))
        job = await put_job(broker, f"job-{JOBS}", "album", JobState.DONE)
        for first in range(0, FILES, 500):
            numbers = range(first, first + 500)
            await asyncio.gather(*(put_file(broker, job, f"{n:05}.png", picture(n), "image/png") for n in numbers))


def test_long_lists_come_in_pages_and_the_page_does_not_freeze(opened: Any, bare: Any) -> None:
    in_thread(_fill, bare)
    with Gateway(bare) as gateway:
        page = opened(gateway.url)
        page.goto("/#jobs")
        settled(page)
        page.evaluate(WATCH)
        begun_s = time.monotonic()
        page.reload()
        page.get_by_text("10,001 jobs").wait_for()
        print(f"10,001 jobs: {time.monotonic() - begun_s:.2f} s until the list is there")
        page.evaluate(WATCH)
        assert page.locator("tbody tr").count() == 50
        page.get_by_role("button", name="Older").click()
        page.get_by_text("51 to 100 of 10,001").wait_for()
        assert page.locator("tbody tr").count() == 50
        page.get_by_role("button", name="Newer").click()
        page.get_by_text("1 to 50 of 10,001").wait_for()
        page.get_by_role("searchbox").fill("film-77")
        page.get_by_text("111 jobs").wait_for()
        page.get_by_role("searchbox").fill("")
        page.get_by_role("link", name="album").click()
        begun_s = time.monotonic()
        page.locator(".gallery button").first.wait_for()
        print(f"5,000 files: {time.monotonic() - begun_s:.2f} s until the first are there")
        assert page.locator(".gallery button").count() == 50
        page.get_by_role("button", name="Show more").click()
        page.get_by_role("button", name="Open picture 00099.png").wait_for()
        page.get_by_role("button", name="Open picture 00003.png").click()
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("ArrowRight")
        page.get_by_role("img", name="Picture 00004.png").wait_for()
        longest_ms = page.evaluate("window.longest")
        print(f"the page was busy for at most {longest_ms:.0f} ms at a time")
        checked(page, "gallery-open")
        page.keyboard.press("Escape")
        checked(page, "files-many")
        page.goto("/#jobs")
        page.get_by_text("10,001 jobs").wait_for()
        checked(page, "jobs-many")
        page.goto("about:blank")

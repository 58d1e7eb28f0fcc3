"""The page shows a job whose results were not collected as complete, and names a pipeline that the fleet lacks."""

from typing import Any

import pytest

from tests.gateway import Gateway
from tests.page.conftest import in_thread
from tests.page.looking import checked, set_language, settled, until, untranslated

pytestmark = pytest.mark.page
# every state that the page showed, also for a moment
SEEN = """
window.seen = [];
const look = () => window.seen.push(...[...document.querySelectorAll(".state")].map((each) => each.className));
new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""


async def _complete(settings: Any, over: bool) -> None:
    from tests.integration.test_gateway_feeds import a_job, end, make_last_part

    async with a_job(settings, hosted=False) as (job, broker):
        await make_last_part(broker, job)
        if over:
            await end(broker, job)


def test_a_job_that_is_complete_never_goes_back_and_says_that_nobody_collected_it(opened: Any, bare: Any) -> None:
    in_thread(_complete, bare, False)
    with Gateway(bare) as gateway:
        page = opened(gateway.url)
        page.add_init_script(SEEN)
        page.goto("/#job/many")
        page.get_by_text("The job has ended. Its results are at the broker, and not collected.").wait_for()
        checked(page, "job-not-collected")
        set_language(page, "zh")
        page.get_by_text("作业已结束，结果在消息服务器上，尚未收取。").wait_for()
        assert untranslated(page, ("many", "simulated")) == []
        set_language(page, "en")
        in_thread(_complete, bare, True)
        page.get_by_text("No files are at the broker: they were collected, or the job made none.").wait_for()
        until(page, "document.getElementById('live').textContent.endsWith(': done')")  # all events have come
        assert set(page.evaluate("window.seen")) == {"state done"}
        page.goto("about:blank")


def test_a_pipeline_that_the_fleet_has_not_is_named_and_no_other_is_chosen(page: Any) -> None:
    page.goto("/#submit/embed")
    said = page.get_by_text("This fleet has no pipeline embed. Choose another one.")
    said.wait_for()
    assert page.locator("#pipeline").input_value() == ""
    assert page.locator(".drop").is_hidden()
    checked(page, "submit-not-here")
    set_language(page, "zh")
    page.get_by_text("这个机群没有流水线 embed。").wait_for()
    assert untranslated(page, ("embed", "upscale", "simulated")) == []
    set_language(page, "en")
    page.locator("#pipeline").select_option("simulated")
    page.locator(".drop").wait_for()
    assert said.is_hidden()
    page.goto("/#submit")
    settled(page)
    assert page.locator("#pipeline").input_value() != ""

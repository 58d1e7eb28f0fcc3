"""Every view in every state: axe finds nothing, nothing is wider than a phone, nothing is untranslated in Chinese."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway
from tests.page.looking import DRAWN, PHONE, VIEWS, checked, set_language, set_theme, settled, submitted, untranslated

pytestmark = pytest.mark.page
API = "**/api/v1/**"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_clean_in_the_dark_on_a_phone_and_in_chinese(page: Any, view: str) -> None:
    page.goto(f"/#{view}")
    settled(page)
    set_theme(page, "dark")
    checked(page, f"{view}-dark")
    page.set_viewport_size(PHONE)
    set_language(page, "zh")
    names = (
        "test-0",
        "test-1",
        "broken.mp4",
        "upscale",
        "simulated",
        "m",
    )  # other tests of this fleet may have been before
    assert untranslated(page, names) == []
    checked(page, f"{view}-phone-chinese-dark")


def test_chinese_characters_are_drawn(page: Any) -> None:
    page.goto("/#jobs")
    settled(page)
    set_language(page, "zh")
    assert page.evaluate(DRAWN, "任务")


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_fleet_that_nobody_used_says_what_to_do(opened: Any, bare: Any, view: str) -> None:
    with Gateway(bare) as gateway:
        page = opened(gateway.url)
        page.set_viewport_size(PHONE)
        page.goto(f"/#{view}")
        settled(page)
        assert page.locator(".empty").count() == 1
        checked(page, f"{view}-empty-phone")
        set_language(page, "zh")
        assert untranslated(page) == []
        page.goto("about:blank")


def test_an_error_of_the_gateway_is_shown_and_tried_again(page: Any, wrong: list[str]) -> None:
    problem = {"status": 500, "title": "Internal Server Error", "detail": "unexpected KeyError", "hint": "see its log"}
    page.route(API, lambda route: route.fulfill(status=500, json=problem, content_type="application/problem+json"))
    for view in VIEWS:
        page.goto(f"/#{view}")
        page.get_by_role("alert").wait_for()
        page.get_by_text("unexpected KeyError").wait_for()
        checked(page, f"{view}-error")
    set_language(page, "zh")
    page.get_by_role("alert").wait_for()
    assert untranslated(page) == []
    page.unroute(API)
    page.get_by_role("button", name="重试").click()
    page.get_by_role("alert").wait_for(state="detached")
    assert all("500" in text for text in wrong)
    wrong.clear()


def test_what_the_gateway_says_is_chinese_on_the_chinese_page(page: Any, wrong: list[str]) -> None:
    page.goto("/#fleet")
    set_language(page, "zh")
    page.get_by_text("没有瓶颈：").wait_for()
    full = {"status": 503, "title": "Service Unavailable", "detail": "the fleet is full", "code": "fleet-full"}
    page.route(API, lambda route: route.fulfill(status=503, json=full, content_type="application/problem+json"))
    page.goto("/#models")
    page.get_by_text("机群已满，请稍后再发送。").wait_for()
    page.get_by_text("the fleet is full").wait_for()
    assert page.locator("#away").is_hidden(), "a full fleet is not away"
    checked(page, "models-full-chinese")
    assert all("503" in text for text in wrong)
    wrong.clear()


def test_a_slow_network_is_said_and_a_view_that_was_left_changes_nothing(page: Any) -> None:
    held = []
    page.route(API, lambda route: held.append(route))
    for view in VIEWS:
        page.goto(f"/#{view}")
        page.locator(".loading").wait_for()
    checked(page, "loading")
    page.set_viewport_size(PHONE)
    page.goto("/#jobs")
    page.locator(".loading").wait_for()
    for route in held[:-1]:  # answers of views that were left, in any order
        try:
            route.fulfill(json={})
        except Exception:  # the page ended that request
            continue
    page.unroute(API)
    page.reload()
    page.get_by_role("searchbox").wait_for()


def test_the_job_and_the_dialogue_are_clean_on_a_phone_in_chinese_and_in_the_dark(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    submitted(page, "simulated", tmp_path / "broken.mp4")
    page.set_viewport_size(PHONE)
    set_theme(page, "dark")
    set_language(page, "zh")
    assert untranslated(page, ("broken.mp4", "simulated")) == []
    checked(page, "submit-sent-phone-chinese")
    page.get_by_role("link", name="broken.mp4").first.click()
    page.get_by_text("失败", exact=True).first.wait_for()
    assert untranslated(page, ("broken.mp4", "simulated")) == []
    checked(page, "job-phone-chinese")
    page.goto("/#jobs")
    page.get_by_role("button", name="删除：broken.mp4").or_(
        page.get_by_role("button", name="删除: broken.mp4")
    ).first.click()
    page.get_by_role("dialog").wait_for()
    assert untranslated(page, ("broken.mp4", "simulated")) == []
    checked(page, "dialog-phone-chinese-dark")
    page.keyboard.press("Escape")


def test_everything_is_reached_by_the_keyboard_in_the_order_of_the_page(page: Any) -> None:
    page.goto("/#fleet")
    page.get_by_role("button", name="Cordon: test-0").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))
    assert [name for name in seen if name][:4] == [
        "Cordon: test-0",
        "Drain: test-0",
        "Cordon: test-1",
        "Drain: test-1",
    ]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline in ("solid", "none")  # none where the focus left the page

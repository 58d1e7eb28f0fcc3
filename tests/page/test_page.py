"""A person's way through the page, in Chromium: submit, progress, result, cancel, dead letter, retry; and axe.

`make test-page` runs it; PAGE_SHOTS names a folder for its pictures.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.cases import drawn
from tests.clips import Clip, make_clip, still
from tests.page.looking import PICTURES_THERE, checked, set_language, settled, submitted, until

pytestmark = pytest.mark.page


def ordered(page: Any, action: str) -> None:
    """Give both workers an order."""
    for name in ("test-0", "test-1"):
        assert page.request.post(f"/api/v1/workers/{name}/{action}").ok


def test_a_film_is_submitted_followed_and_cancelled(page: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=400))
    submitted(page, "simulated", clip)
    checked(page, "submit")
    page.get_by_role("link", name=f"{clip.name} is job").click()
    page.get_by_role("progressbar", name="% done").wait_for()
    ordered(page, "cordon")  # so that it still runs when it was looked at
    checked(page, "job-running")
    page.get_by_role("button", name=f"Cancel: {clip.name}").click()
    page.get_by_role("heading", name="Failures").wait_for()
    checked(page, "job-cancelled")
    ordered(page, "resume")


def test_an_enlarged_picture_is_beside_the_one_that_was_sent(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(drawn((90, 120), 3)).save(tmp_path / "small.png")
    submitted(page, "upscale", tmp_path / "small.png")
    page.get_by_role("link", name="small.png is job").click()
    slider = page.get_by_role("slider", name="Share of the picture before")
    slider.fill("30")
    assert "70%" in page.locator(".compare img").nth(1).evaluate("(each) => each.style.clipPath")
    slider.press("ArrowRight")
    assert "69%" in page.locator(".compare img").nth(1).evaluate("(each) => each.style.clipPath")
    until(page, PICTURES_THERE)
    widths = page.evaluate("[...document.querySelectorAll('.compare img')].map((each) => each.naturalWidth)")
    assert widths == [240, 120]
    checked(page, "result-compare")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: ").first.click()
    assert Path(download.value.path()).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page.goto("/#jobs")
    small = page.locator("tr", has_text="small.png").locator("img.thumb")
    small.wait_for()
    until(page, PICTURES_THERE)
    assert small.evaluate("(each) => [each.naturalWidth, each.naturalHeight]") == [240, 180]


def test_what_failed_is_a_dead_letter_that_is_tried_again_and_dropped(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no film at all")
    submitted(page, "simulated", tmp_path / "broken.mp4")
    page.get_by_role("link", name="broken.mp4 is job").click()
    page.get_by_text("failed", exact=True).wait_for()
    checked(page, "job-failed")
    page.goto("/#dead")
    row = page.get_by_role("row", name="broken.mp4 is no video, sound or picture")
    row.wait_for()
    checked(page, "dead-letters")
    retry = row.get_by_role("button", name="Retry")
    before = retry.get_attribute("aria-label")
    retry.click()
    page.get_by_role("button", name=str(before), exact=True).wait_for(state="detached")  # it is sent, and fails again
    page.goto("/#jobs")
    page.get_by_role("row", name="broken.mp4").get_by_text("failed", exact=True).wait_for()
    checked(page, "jobs")
    page.goto("/#dead")
    row.get_by_role("button", name="Drop").click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    checked(page, "dead-dialog")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    row.get_by_role("button", name="Drop").click()
    page.get_by_role("dialog").get_by_role("button", name="Drop").click()
    row.wait_for(state="detached")


def test_a_failed_job_is_retried_where_it_has_dead_letters(page: Any, tmp_path: Path) -> None:
    """A broken picture has none: its reason is in Chinese, too."""
    (tmp_path / "nofilm.mp4").write_bytes(b"this is no film at all")
    (tmp_path / "half.jpg").write_bytes(still("mjpeg", size=(240, 180))[:-100])
    submitted(page, "simulated", tmp_path / "nofilm.mp4")
    page.get_by_role("link", name="nofilm.mp4 is job").click()
    with page.expect_response(lambda answer: answer.url.endswith("/retry")) as answered:
        page.get_by_role("button", name="Retry: nofilm.mp4").click()
    assert answered.value.ok
    page.get_by_role("button", name="Retry: nofilm.mp4").wait_for()  # it has failed again
    assert page.locator(".problem").count() == 0
    submitted(page, "upscale", tmp_path / "half.jpg")
    page.get_by_role("link", name="half.jpg is job").click()
    page.get_by_text("failed", exact=True).wait_for()
    page.get_by_text("half.jpg: the jpeg image is truncated: copy or download it again").wait_for()
    page.get_by_text("No files are at the broker").wait_for()  # what it looks for is there
    assert page.get_by_role("button", name="Retry").count() == 0
    page.goto("/#jobs")
    page.get_by_role("button", name="Retry: nofilm.mp4").wait_for()
    page.get_by_role("row", name="half.jpg").get_by_text("failed", exact=True).wait_for()
    assert page.get_by_role("button", name="Retry: half.jpg").count() == 0
    with page.expect_response(lambda answer: answer.url.endswith("/retry")) as answered:
        page.get_by_role("button", name="Retry: nofilm.mp4").click()
    assert answered.value.ok
    page.get_by_role("button", name="Retry: nofilm.mp4").wait_for()  # it has failed again
    page.get_by_role("link", name="half.jpg").click()
    page.get_by_text("half.jpg: the jpeg image is truncated").wait_for()
    set_language(page, "zh")
    page.get_by_text("half.jpg：jpeg 图片不完整：请重新复制或下载").wait_for()
    checked(page, "job-failed-chinese")
    set_language(page, "en")


def test_what_is_not_there_is_said_with_the_views_of_the_page(page: Any, wrong: list[str]) -> None:
    page.goto("/#job/nope")
    page.get_by_text("the broker knows no job nope").wait_for()
    assert page.locator(".problem div").inner_text() == "see “Jobs” on this page"
    page.locator("#language").select_option("zh")
    page.get_by_text("消息服务器上没有作业 nope").wait_for()
    assert page.locator(".problem div").all_inner_texts() == ["消息服务器上没有作业 nope", "请看本页的“作业”"]
    page.locator("#language").select_option("en")
    page.goto("about:blank")
    assert all("404" in each for each in wrong)
    wrong.clear()


def test_jobs_are_found_by_their_name_and_deleted_by_keys_alone(page: Any, tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    submitted(page, "simulated", tmp_path / "one.mp4", tmp_path / "two.mp4")
    page.goto("/#jobs")
    page.get_by_role("searchbox", name="Find by name").focus()
    page.keyboard.type("two.")
    page.get_by_text("1 job", exact=True).wait_for()
    page.get_by_role("row", name="two.mp4").get_by_text("failed", exact=True).wait_for()
    page.get_by_role("button", name="Delete: two.mp4").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    checked(page, "jobs-dialog")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing fits.").wait_for()
    checked(page, "jobs-nothing-fits")


def test_a_worker_is_cordoned_and_resumed(page: Any) -> None:
    page.goto("/#fleet")
    page.get_by_role("button", name="Cordon: test-0").click()
    page.get_by_role("button", name="Resume: test-0").click()
    page.get_by_role("button", name="Cordon: test-0").wait_for()
    page.get_by_role("button", name="Drain: test-0").click()
    page.get_by_role("dialog").wait_for()
    checked(page, "fleet-dialog")
    page.get_by_role("button", name="Keep").click()
    checked(page, "fleet")


def test_a_model_is_added_by_its_file_shown_and_removed(page: Any, wrong: list[str], tmp_path: Path) -> None:
    from tests.integration.test_gateway_models import reducing

    (tmp_path / "my net.onnx").write_bytes(reducing("ReduceMean"))
    page.goto("/#models")
    settled(page)
    page.locator("#files").set_input_files(tmp_path / "my net.onnx")
    assert page.locator("#name").input_value() == "my-net"
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("heading", name="my-net").wait_for()
    page.get_by_text("No worker runs it now").wait_for()
    checked(page, "model")
    page.get_by_role("button", name="Remove: my-net").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("heading", name="Add a model").wait_for()
    assert page.get_by_text("my-net").count() == 0
    page.get_by_role("link", name="m", exact=True).click()
    page.get_by_text("Pipelines run it").wait_for()
    page.get_by_role("cell", name="test-0").wait_for()
    assert page.get_by_role("button", name="Remove: m").is_disabled()
    checked(page, "model-in-use")
    (tmp_path / "wrong.onnx").write_bytes(b"no model")
    page.goto("/#models")
    page.locator("#files").set_input_files(tmp_path / "wrong.onnx")
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("alert").wait_for()
    checked(page, "models-wrong")
    assert ["422" in text for text in wrong] == [True]
    wrong.clear()

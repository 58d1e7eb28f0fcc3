"""Names and results that would be markup, or that run the other way, are shown as they are; nothing else gets in."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway import Gateway
from tests.page.conftest import in_thread
from tests.page.looking import PHONE, checked, settled

pytestmark = pytest.mark.page
NAMES = (
    "<img src=x onerror=\"document.title='taken'\">.mp4",
    "</td><script>document.title='taken'</script>.png",
    "\"quotes\" & 'apostrophes' `${document.title='taken'}`.mp4",
    "שלום-سلام-hello.mkv",
    "\u202egnp.exe",
    "a" * 180 + ".mp4",
    "很长的中文文件名称用来测试换行" * 4 + ".mp4",
    "constructor",
    "../../etc/passwd",
)
CONTENT = {
    "table.csv": b'name,time\n"<b onmouseover=alert(1)>x</b>",1.5\n"a ""quoted"", one",2\n',
    "rows.jsonl": b'{"text": "<script>document.title=\'taken\'</script>", "__proto__": {"x": 1}, "start": 0.5}\n',
    "broken.json": b'{"segments": [{"words": "no list"}, null]}',
    "words.json": b'{"segments": [{"start": 1, "text": "<i>said</i>"}]}',
    "page.html": b"<script>document.title='taken'</script>",
    "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="document.title=\'taken\'"></svg>',
    "no.npz": b"PK\x05\x06 no zip",
}


async def _fill(settings: Any) -> str:
    from pipelines.broker import Broker
    from pipelines.topology import ensure_topology
    from schemas.jobs import JobState
    from tests.page.made import put_file, put_job

    async with Broker.connected(settings, "test") as broker:
        await ensure_topology(broker, settings, [])
        for number, name in enumerate(NAMES):
            job = await put_job(broker, f"hostile-{number}", name, JobState.FAILED, reasons=(f"decode: {name}",))
        for number, (name, body) in enumerate(CONTENT.items()):
            await put_file(broker, job, f"{NAMES[number % 3][:40]}{name}", body, "text/html" if number == 4 else "")
        return job.id


def test_names_and_results_are_no_markup(opened: Any, bare: Any, wrong: list[str]) -> None:
    job = in_thread(_fill, bare)
    with Gateway(bare) as gateway:
        page = opened(gateway.url)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto("/#jobs")
        settled(page)
        shown = page.locator("td.name").all_text_contents()
        assert shown == [name.replace("\u202e", "\ufffd") for name in reversed(NAMES)]
        assert page.locator("main script, main img[src=x], main [onerror], main b").count() == 0
        checked(page, "hostile-jobs")
        page.set_viewport_size(PHONE)
        checked(page, "hostile-jobs-phone")
        page.goto(f"/#job/{job}")
        page.locator("section.file").first.wait_for()
        page.get_by_text("<script>document.title='taken'</script>").first.wait_for()
        checked(page, "hostile-results-phone")
        assert page.locator("section.file").count() == len(CONTENT)
        assert page.locator("main script, main iframe, main object, main svg [onload]").count() == 0
        page.goto("/#job/%00%E0%A4%A")  # no address at all
        page.get_by_role("alert").wait_for()
        page.goto("/#__proto__")
        settled(page)
        assert page.title() == "Jobs · rigflow"
        page.goto("about:blank")
    assert [text for text in wrong if "404" not in text and "422" not in text] == []
    wrong.clear()


def test_the_policy_lets_no_other_script_style_frame_or_host_in(page: Any, url: str, wrong: list[str]) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto("/#fleet")
    settled(page)
    tried = page.evaluate("""async () => {
      const inline = document.createElement("script");
      inline.textContent = "window.inline = 1";
      document.body.append(inline);
      document.body.insertAdjacentHTML("beforeend", "<p id=p style='color: red' onclick='window.clicked = 1'>x</p>");
      document.getElementById("p").click();
      const fetched = await fetch("http://127.0.0.2:9/").then(() => true, () => false);
      const style = getComputedStyle(document.getElementById("p")).color;
      return { inline: window.inline ?? 0, clicked: window.clicked ?? 0, fetched, style };
    }""")
    assert tried["style"] != "rgb(255, 0, 0)"
    assert tried == {"inline": 0, "clicked": 0, "fetched": False, "style": tried["style"]}
    assert hosts == {url.split("/")[2]}
    assert len(wrong) >= 4
    assert all("Content Security Policy" in text or "Failed" in text or "Refused" in text for text in wrong), wrong
    wrong.clear()


def test_scripts_of_the_page_listen_for_no_rows_and_write_no_markup() -> None:
    """Text becomes a text node; the one listener of clicks is the view's."""
    for path in Path("gateway/page/static").glob("*.js"):
        source = path.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert forbidden not in source, (path.name, forbidden)

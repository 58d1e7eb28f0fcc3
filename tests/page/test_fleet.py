"""The fleet's view by what a fleet with GPUs reports: sensors, lost and stopped rigs, what each worker works on."""

import time
from typing import Any

import pytest

from tests.page.looking import PHONE, WIDE, checked, set_language, settled, untranslated

pytestmark = pytest.mark.page
NOW_S = time.time()
SENSORS = {
    "utilization_ratio": 0.87,
    "decoder_utilization_ratio": 0.4,
    "encoder_utilization_ratio": 0.25,
    "memory_used_bytes": 3.2e9,
    "memory_total_bytes": 8.5e9,
    "power_watts": 120.5,
    "power_limit_watts": 180.0,
    "temperature_celsius": 66.0,
    "fan_speed_ratio": 0.55,
    "clocks": {"sm": 1607e6, "memory": 5005e6},
    "throttled": ["power-cap"],
}


def worker(name: str, rig: str, **further: Any) -> dict[str, Any]:
    gpu = {"name": "P104-100", "sensors": SENSORS}
    done = [{"pipeline": "upscale", "stage": "infer", "parts": 4, "frames": 90, "frames_per_s": 12.34, "busy": 0.93}]
    known = {"worker": name, "rig": rig, "device": "cuda:0", "gpu": gpu, "stages": ["all"], "state": "working"}
    known |= {"why": "", "declined": {}, "at_s": NOW_S, "rss_bytes": 812e6, "in_flight": 3, "order": "work"}
    return known | {"done": done, "step": {"pipeline": "upscale", "stage": "infer", "seconds": 1.26}} | further


def rig(name: str, state: str, workers: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
    slots = [
        {"worker": each["worker"], "state": "working", "why": "", "deaths": 0, "last_exit": ""} for each in workers
    ]
    known = {"rig": name, "host": f"{name}.lan", "state": state, "at_s": NOW_S, "metrics": "", "order": "work"}
    return known | {"since_s": 0.0, "workers": slots} | further


def fleet() -> dict[str, Any]:
    declined = {"transcribe": "transcribe needs the package ctranslate2, which is not installed here"}
    workers = [
        worker("mine-1-gpu0", "mine-1"),
        worker("mine-1-gpu1", "mine-1", state="cordoned", order="cordon", step=None, done=[], in_flight=0),
        worker("mine-1-cpu0", "mine-1", gpu={}, device="cpu", declined=declined, at_s=NOW_S - 3600),
    ]
    up = rig("mine-1", "working", workers)
    up["workers"].append(
        {"worker": "mine-1-gpu2", "state": "given up", "why": "5 deaths in 60 s", "deaths": 5, "last_exit": "-11"}
    )
    slots = [worker(f"x-{number}", "mine-2") for number in range(2)]
    gone = [
        rig("mine-2", "lost", slots, at_s=NOW_S - 7200, since_s=NOW_S - 7200),
        rig("mine-3", "stopped", slots[:1], at_s=NOW_S - 90_000, since_s=NOW_S - 90_000),
    ]
    queue = {"pipeline": "upscale", "stage": "infer", "messages": 1234, "bytes": 2.1e8, "limit_bytes": 2.7e8}
    queue |= {"oldest_s": 75.0, "interactive": 4, "bulk": 1200, "in_flight": 30}
    said = "The bottleneck is upscale infer: it takes 93% of the time of 3 workers (12 frames/s), while 1204 messages "
    said += "wait (210.0 MB, the oldest for 75 s) in front of it."
    return {"bottleneck": said, "store_bytes": 4.2e9, "dead_letters": 2, "workers": workers, "rigs": [up, *gone]} | {
        "queues": [queue]
    }


def test_sensors_lost_rigs_and_queues_are_shown(page: Any) -> None:
    page.route("**/api/v1/fleet", lambda route: route.fulfill(json=fleet()))
    page.goto("/#fleet")
    settled(page)
    card = page.get_by_role("region", name="mine-1-gpu0")
    for text in ("66 °C", "121 / 180 W", "3.2 GB / 8.5 GB", "1,607 MHz", "55 %", "power limit", "87 %", "40 %", "25 %"):
        assert card.get_by_text(text).count() == 1, text
    assert "upscale infer" in card.inner_text()
    assert "12.3 frames/s" in card.inner_text()
    assert page.get_by_role("region", name="mine-1-cpu0").get_by_text("silent for 1:0").count() == 1
    lost = page.get_by_role("region", name="mine-2", exact=True)
    assert lost.get_by_text("lost").count() == 1
    assert "since" in lost.inner_text()
    assert "It had 2 workers." in lost.inner_text()
    assert page.get_by_role("region", name="mine-3").get_by_text("stopped").count() == 1
    assert page.get_by_role("region", name="mine-1", exact=True).get_by_text("given up").count() == 1
    assert page.get_by_role("link", name="2 dead letters").count() == 1
    assert page.get_by_role("button", name="Resume: mine-1-gpu1").count() == 1
    checked(page, "fleet-gpus")
    page.set_viewport_size(PHONE)
    set_language(page, "zh")
    names = ("mine-1-gpu0", "mine-1-gpu1", "mine-1-cpu0", "mine-1", "mine-2", "mine-3")
    assert untranslated(page, names) == []
    checked(page, "fleet-gpus-phone-chinese")


LINES = "[...document.querySelectorAll('.loads dd')].map((each) => [each.innerText, each.getClientRects()[0].height])"


def test_full_loads_are_one_line_beside_their_bars(page: Any) -> None:
    full = dict.fromkeys(("utilization_ratio", "decoder_utilization_ratio", "encoder_utilization_ratio"), 1.0)
    shown = fleet()
    shown["workers"][0]["gpu"] = {"name": "P104-100", "sensors": SENSORS | full | {"memory_used_bytes": 8.5e9}}
    shown["workers"][0]["done"][0]["busy"] = 1.0
    page.route("**/api/v1/fleet", lambda route: route.fulfill(json=shown))
    page.goto("/#fleet")
    for size in (WIDE, PHONE):
        page.set_viewport_size(size)
        settled(page)
        lines = page.evaluate(LINES)
        assert [text.replace("\N{NO-BREAK SPACE}", " ").strip() for text, _ in lines[:5]] == ["100 %"] * 5
        assert len({height for _, height in lines}) == 1, lines
        assert page.evaluate(
            "[...document.querySelectorAll('.loads dd')].every((each) => each.scrollWidth <= each.clientWidth)"
        )

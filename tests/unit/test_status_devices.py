"""What `rigflow status` shows of devices: once each, in words."""

from types import SimpleNamespace
from typing import Any

from cli.status_devices import device_of, devices


def test_a_device_is_shown_once_with_what_it_was_measured_to_do() -> None:
    words = "fp16 1/64 of fp32: never, PCIe 2.5 GT/s x1 210 MB/s in"
    mining = {"device": "cuda:0", "gpu": {"name": "NVIDIA P106-100"}, "profile": words}
    workers = [mining, mining, {"device": "cpu", "gpu": {}}, {"device": "cpu", "profile": ""}]
    fleet: Any = SimpleNamespace(workers=workers)
    assert [str(line) for line in devices(fleet)] == [f"P106-100  {words}"]
    assert [device_of(worker) for worker in workers] == ["P106-100", "P106-100", "cpu", "cpu"]


def test_equal_cards_that_were_measured_differently_have_their_rigs_beside_them() -> None:
    def on(rig: str, number: int, profile: str) -> dict[str, Any]:
        worker = f"{rig}-gpu{number}"
        return {"worker": worker, "rig": rig, "device": "cuda:0", "gpu": {"name": "P106-100"}, "profile": profile}

    slow, fast = "PCIe x1 0.2 GB/s in", "PCIe x16 12 GB/s in"
    fleet: Any = SimpleNamespace(workers=[on("a", 0, slow), on("a", 1, slow), on("b", 0, fast), on("c", 0, slow)])
    assert [str(line) for line in devices(fleet)] == [f"P106-100 of a, c  {slow}", f"P106-100 of b  {fast}"]
    fleet.workers += [on("c", 1, fast)]
    assert [str(line) for line in devices(fleet)] == [
        f"P106-100 of a, c-gpu0  {slow}",
        f"P106-100 of b, c-gpu1  {fast}",
    ]

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

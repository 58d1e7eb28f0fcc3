"""How busy a GPU is, as NVML sees it; needs `nvidia-ml-py`."""

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

EVERY_S = 0.1
_COUNTED = {  # of all processes; GPUs since Hopper count them
    "share of time with a kernel": "NVML_GPM_METRIC_GRAPHICS_UTIL",
    "share of SMs with work, over time": "NVML_GPM_METRIC_SM_UTIL",
    "MB/s from the GPU over PCI Express": "NVML_GPM_METRIC_PCIE_TX_PER_SEC",
    "MB/s to the GPU over PCI Express": "NVML_GPM_METRIC_PCIE_RX_PER_SEC",
}


class Busy:
    """While it is entered, it asks NVML every tenth of a second. `found` are the figures; empty without NVML."""

    def __init__(self, uuid: str) -> None:
        self._uuid, self._shares = uuid, list[int]()
        self._over = threading.Event()
        self.found: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with suppress(ImportError):
            import pynvml

            pynvml.nvmlInit()
            uuid = self._uuid if self._uuid.startswith("GPU-") else f"GPU-{self._uuid}"
            self._nvml, self._device = pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._counts = [self._count()]
            self._thread = threading.Thread(target=self._ask)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not hasattr(self, "_thread"):
            return
        self._thread.join()
        self._counts.append(self._count())
        if self._shares:
            tenth = len(self._shares) // 10
            middle = self._shares[tenth : len(self._shares) - tenth]
            self.found["GPU busy, %, NVML's samples"] = sum(self._shares) / len(self._shares)
            self.found["GPU busy, %, without the first and the last tenth"] = sum(middle) / len(middle)
        if None not in self._counts:
            self.found |= self._counted()

    def _ask(self) -> None:
        while not self._over.wait(EVERY_S):
            self._shares.append(int(self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu))

    def _count(self) -> Any:
        nvml = self._nvml
        try:
            if not nvml.nvmlGpmQueryDeviceSupport(self._device).isSupportedDevice:
                return None
            sample = nvml.nvmlGpmSampleAlloc()
            nvml.nvmlGpmSampleGet(self._device, sample)
        except nvml.NVMLError:
            return None
        time.sleep(EVERY_S)  # two samples must not be of the same moment
        return sample

    def _counted(self) -> dict[str, float]:
        nvml = self._nvml
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(_COUNTED)
        asked.sample1, asked.sample2 = self._counts
        for number, name in enumerate(_COUNTED.values()):
            asked.metrics[number].metricId = getattr(nvml, name)
        try:
            nvml.nvmlGpmMetricsGet(asked)
        except nvml.NVMLError as error:
            return {"NVML counts nothing": str(error)}  # type: ignore[dict-item]
        return {name: float(asked.metrics[number].value) for number, name in enumerate(_COUNTED)}

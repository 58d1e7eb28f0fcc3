"""The GPU that tests compute on."""

from collections.abc import Iterator

import pytest

from engines.cuda.gpu import CudaGpu


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CudaGpu]:
    """Opened once for a module; the kernels are compiled once for all."""
    opened = CudaGpu("cuda:0", tmp_path_factory.getbasetemp() / "kernels")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def since_ampere(gpu: CudaGpu) -> None:
    """For tests of kernels that older GPUs cannot run."""
    if gpu.facts.capability < (8, 0):
        pytest.skip("the kernels are for GPUs since Ampere")

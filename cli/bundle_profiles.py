"""What a bundle for each kind of machine has beside rigflow and its dependencies."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BundleProfile:
    """`capability` is CUDA's (major, minor), None for the CPU. `last`: what is installed again after all others."""

    what: str
    requirements: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    capability: tuple[int, int] | None = None
    own_files: Mapping[str, str] = field(default_factory=dict)  # what only the owner can give, with --add, by package


# onnxruntime-gpu and onnxruntime have the same files: the one for GPUs is written last, and both are of one version
PROFILES = {
    "cpu": BundleProfile("the CPU"),
    "sm75": BundleProfile(
        "NVIDIA GPUs of Turing (sm 7.5) and newer, CUDA 13",
        # 1.24 and newer have code for these; onnxruntime alone may have a newer release
        (
            "onnxruntime-gpu[cuda,cudnn]==1.31.1",
            "onnxruntime==1.31.1",
            "nvidia-ml-py>=12.560",
            "tensorrt-rtx>=1.2",
        ),
        last=("onnxruntime-gpu",),
        capability=(7, 5),
        own_files={"pycuda": "built on a machine with the CUDA toolkit, pip wheel pycuda"},
    ),
    "sm61": BundleProfile(
        "NVIDIA GPUs of Pascal (sm 6.1), CUDA 12",
        # the last releases with code for Pascal: of ONNX Runtime 1.23, of cuDNN 9.10
        (
            "onnxruntime-gpu[cuda,cudnn]==1.23.2",
            "onnxruntime==1.23.2",
            "nvidia-cudnn-cu12>=9,<9.11",
            "nvidia-cuda-nvrtc-cu12>=12.4,<13",
            "nvidia-ml-py>=12.560",
            "ctranslate2>=4.6",
            "tokenizers>=0.20",
        ),
        last=("onnxruntime-gpu",),
        capability=(6, 1),
        own_files={"pycuda": "built with CUDA 12, pip wheel pycuda", "tensorrt": "8.6, from NVIDIA, if you want it"},
    ),
}

"""One NVIDIA GPU: decoding, transforms and memory. Nothing here touches CUDA when it is imported."""

"""One NVIDIA GPU: decoding, transforms and memory. Importing this package does not use CUDA."""

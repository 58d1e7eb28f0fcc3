// Lets a C++ compiler build engines/cuda/kernels.cu: threads run one after the other, a block's rows as one.
#pragma once
#include <cmath>
#include <cstddef>
#define __global__
#define __device__
#define __shared__ static
struct Place { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static Place threadIdx, blockIdx, blockDim, gridDim;
static inline void __syncthreads() {}
static inline int atomicAdd(int *sum, int more) { const int before = *sum; *sum += more; return before; }

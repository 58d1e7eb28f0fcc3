// Lets a C++ compiler build engines/cuda/kernels.cu and x3d.cu: threads run one after the other, a block's rows as one.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#define __launch_bounds__(threads)
#define __global__
#define __device__
#define __shared__ static
struct Place { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct float2 { float x, y; };
static Place threadIdx, blockIdx, blockDim, gridDim;
static inline void __syncthreads() {}
static inline int atomicAdd(int *sum, int more) { const int before = *sum; *sum += more; return before; }
template <class T> static inline T __ldg(const T *at) { return *at; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline unsigned halves(float low, float high) {
    const _Float16 both[2] = {(_Float16)low, (_Float16)high};
    unsigned made;
    memcpy(&made, both, 4);
    return made;
}
static inline float2 floats(unsigned both) {
    _Float16 made[2];
    memcpy(made, &both, 4);
    return {(float)made[0], (float)made[1]};
}
#define __expf(value) expf(value)
static inline float __fdividef(float one, float other) { return one / other; }

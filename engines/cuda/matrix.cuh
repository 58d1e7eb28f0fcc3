// What kernels share that multiply float16 on the matrix units of GPUs since Ampere.
#pragma once
#ifdef RIGFLOW_ON_HOST
#include RIGFLOW_ON_HOST
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long address;

#ifndef RIGFLOW_ON_HOST

__device__ static inline u32 halves(float low, float high) {
    u32 both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ static inline float2 floats(u32 both) {
    float2 made;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
        : "=f"(made.x), "=f"(made.y)
        : "r"(both));
    return made;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

#define ROW_BYTES 128  // of a row of values in shared memory

__device__ static inline void copy16(u32 to, address from, int bytes) {  // fewer than 16 bytes: zeros follow
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ static inline void load4(u32 *r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ static inline void multiply(float *c, const u32 *a, u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Where 16 bytes of a row of 128 lie in shared memory: eight rows one below the other are in different banks.
__device__ static inline u32 place(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }

#endif
#endif

// x * sigmoid(x)
__device__ static inline float swish(float value) { return __fdividef(value, 1 + __expf(-value)); }

// Arithmetic that measures a GPU: `rounds` times eight independent operations a thread. engines/profiling/gpu.py has
// the kinds, in their order; the results are stored, so that the compiler keeps the work.
typedef unsigned long long address;

struct Rate { address out; int kind, rounds; };

#define EIGHT(operation) for (int i = 0; i < 8; i++) { operation }
#define ROUNDS(operations) _Pragma("unroll 16") for (int round = 0; round < r.rounds; round++) operations

extern "C" __global__ void rate(const Rate r) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    float f[8], factor = 0.999f + at * 1e-9f, term = 1e-3f;
    unsigned u[8], ones = 0x3c003c00u, few = 0x00010001u + at;  // two float16 of 1, and two of nearly 0
    EIGHT(f[i] = at + i; u[i] = ones + i;)
    if (r.kind == 0) {
        ROUNDS(EIGHT(f[i] = __fmaf_rn(f[i], factor, term);))
    } else if (r.kind == 1) {
        ROUNDS(EIGHT(f[i] = __fadd_rn(__fmul_rn(f[i], factor), term);))
    } else if (r.kind == 2) {
        ROUNDS(EIGHT(asm volatile("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(u[i]) : "r"(ones), "r"(few));))
    } else if (r.kind == 3) {
        ROUNDS(EIGHT(asm volatile("mul.rn.f16x2 %0, %0, %1;\n\tadd.rn.f16x2 %0, %0, %2;"
                                  : "+r"(u[i]) : "r"(ones), "r"(few));))
#if __CUDA_ARCH__ >= 610
    } else if (r.kind == 4) {
        ROUNDS(EIGHT(asm volatile("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(u[i]) : "r"(ones), "r"(few));))
#endif
#if __CUDA_ARCH__ >= 700
    } else if (r.kind == 5) {  // a warp multiplies matrices of 16 x 16 by its tensor cores, two a round
        ROUNDS(for (int i = 0; i < 8; i += 4)
            asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.f16.f16 {%0, %1, %2, %3}, "
                         "{%4, %4, %4, %4, %4, %4, %4, %4}, {%5, %5, %5, %5, %5, %5, %5, %5}, {%0, %1, %2, %3};"
                         : "+r"(u[i]), "+r"(u[i + 1]), "+r"(u[i + 2]), "+r"(u[i + 3]) : "r"(ones), "r"(few));)
#endif
    }
    float sum = 0;
    EIGHT(sum += f[i] + (float)u[i];)
    ((float *)r.out)[at] = sum;
}

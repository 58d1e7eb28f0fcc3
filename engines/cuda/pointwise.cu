// Convolutions of 1 x 1 x 1, with what stands before and behind them in a network. Activations are float16 `[rows, C]`,
// sums float32, always in the same order. The kernel takes one struct, which engines/inference/x3d.py declares too.
#include "matrix.cuh"

struct Pointwise {
    address in, out, weights, bias;  // float16 [rows, in_pitch], [rows, pitch], [columns, depth]; float32 [columns]
    address gates;                   // float32 [N, in_pitch] that the input is multiplied by; 0: none
    address added;                   // float16 [rows, pitch] that is added; 0: none
    int rows, in_pitch, pitch, depth, window_rows;
    int swish, relu;                                    // before and after
    int stride, height, width, in_height, in_width;  // of a stride above 1
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

const int tile_rows = 128, tile_columns = 64, tile_depth = 64, pointwise_threads = 256;
const int stage_bytes = (tile_rows + tile_columns) * ROW_BYTES;

__device__ static inline float swish(float value) { return __fdividef(value, 1 + __expf(-value)); }

// Multiplies 16 bytes of a row by the gates of its window, and applies x * sigmoid(x).
__device__ static inline void swish8(u8 *at, const float *gates) {
    uint4 *chunk = (uint4 *)at;
    uint4 both = *chunk;
    u32 *pairs = (u32 *)&both;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 value = floats(pairs[i]);
        if (gates) value.x *= gates[2 * i], value.y *= gates[2 * i + 1];
        pairs[i] = halves(swish(value.x), swish(value.y));
    }
    *chunk = both;
}

// A block of eight warps, four by two of 32 rows and 32 columns, makes 128 rows and 64 columns.
extern "C" __global__ void __launch_bounds__(pointwise_threads) pointwise(const Pointwise c) {
    __shared__ __align__(1024) u8 shared[2 * stage_bytes];
    const u32 base = (u32)__cvta_generic_to_shared(shared);
    const int me = threadIdx.x, lane = me & 31, warp_row = (me >> 5) % 4 * 32, warp_column = (me >> 5) / 4 * 32;
    const long long row0 = (long long)blockIdx.y * tile_rows;
    const int column0 = blockIdx.x * tile_columns, chunk = me & 7;
    address source[4];  // of the rows that this thread copies
    int window[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        long long row = row0 + (me >> 3) + i * 32;
        if (row >= c.rows) row = c.rows - 1;
        window[i] = row / c.window_rows;
        if (c.stride > 1) {
            const int x = row % c.width, y = row / c.width % c.height;
            row = (row / c.width / c.height * c.in_height + y * c.stride) * c.in_width + x * c.stride;
        }
        source[i] = c.in + row * c.in_pitch * 2;
    }
    const auto load = [&](int stage, int k0) {
        const u32 to = base + stage * stage_bytes;
        const int k = k0 + chunk * 8;
#pragma unroll
        for (int i = 0; i < 4; i++)
            copy16(to + place((me >> 3) + i * 32, chunk), k < c.in_pitch ? source[i] + k * 2 : c.in,
                   k < c.in_pitch ? 16 : 0);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int column = (me >> 3) + i * 32;
            copy16(to + place(tile_rows + column, chunk), c.weights + ((long long)(column0 + column) * c.depth + k) * 2, 16);
        }
        asm volatile("cp.async.commit_group;");
    };
    float sums[2][4][4] = {};
    load(0, 0);
    for (int k0 = 0, stage = 0; k0 < c.in_pitch; k0 += tile_depth, stage ^= 1) {
        if (k0 + tile_depth < c.in_pitch) {
            load(stage ^ 1, k0 + tile_depth);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        const int k = k0 + chunk * 8;
        if (c.swish && k < c.in_pitch) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                swish8(shared + stage * stage_bytes + place((me >> 3) + i * 32, chunk),
                       c.gates ? (const float *)c.gates + (long long)window[i] * c.in_pitch + k : 0);
        }
        __syncthreads();
        const u32 tile = base + stage * stage_bytes;
        const int steps = (c.in_pitch - k0 < tile_depth ? c.in_pitch - k0 + 15 : tile_depth) / 16;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            u32 a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++)
                load4(a[i], tile + place(warp_row + i * 16 + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < 2; j++)
                load4(b[j], tile + place(tile_rows + warp_column + j * 16 + (lane & 7) + ((lane >> 4) << 3),
                                         step * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    multiply(sums[i][j], a[i], b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const long long row = row0 + warp_row + i / 2 * 16 + i % 2 * 8 + (lane >> 2);
        if (row >= c.rows) continue;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = column0 + warp_column + j * 8 + (lane & 3) * 2;
            if (column >= c.pitch) continue;
            const float *bias = (const float *)c.bias + column;
            float one = sums[i / 2][j][i % 2 * 2] + bias[0], two = sums[i / 2][j][i % 2 * 2 + 1] + bias[1];
            if (c.added) {
                const float2 more = floats(*(const u32 *)(c.added + (row * c.pitch + column) * 2));
                one += more.x, two += more.y;
            }
            if (c.relu) one = one > 0 ? one : 0, two = two > 0 ? two : 0;
            *(u32 *)(c.out + (row * c.pitch + column) * 2) = halves(one, two);
        }
    }
}

#endif

// Convolutions of 1 x 1 x 1, with what stands before and behind them in a network. Activations are float16 `[rows, C]`,
// sums float32, always in the same order. The kernel takes one struct, which engines/inference/x3d.py declares too.
#include "matrix.cuh"

struct Pointwise {
    address in, out, weights, bias;  // float16 [rows, in_pitch], [rows, pitch], [columns, depth]; float32 [columns]
    address gates;                   // float32 [N, in_pitch] that the input is multiplied by; 0: none
    address added;                   // float16 [rows, pitch] that is added; 0: none
    int rows, in_pitch, pitch, depth, window_rows;
    int swish, relu;                                  // before and after
    int stride, height, width, in_height, in_width;   // of a stride above 1
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

const int tile_rows = 128, tile_depth = 64, stages = 3, pointwise_threads = 256, stage_bytes = tile_rows * ROW_BYTES;

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

// A block keeps the weights of some columns in shared memory, and makes these columns of tiles of 128 rows, one after the
// other: eight warps, four by two. While it multiplies 64 values of each row, the next ones are on their way.
template <int columns>
__device__ static inline void convolve(const Pointwise &c) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = (u32)__cvta_generic_to_shared(shared), kept = base + stages * stage_bytes;
    const int me = threadIdx.x, lane = me & 31, warp_row = (me >> 5) % 4 * 32, warp_column = (me >> 5) / 4 * (columns / 2);
    const int column0 = blockIdx.x * columns, chunk = me & 7, pieces = c.depth / tile_depth;
    const int tiles = (c.rows + tile_rows - 1) / tile_rows;
    for (int i = me; i < pieces * columns * 8; i += pointwise_threads) {
        const int row = i >> 3, piece = row / columns, column = column0 + row % columns;
        copy16(kept + place(row, i & 7), c.weights + ((long long)column * c.depth + piece * tile_depth + (i & 7) * 8) * 2, 16);
    }
    const auto load = [&](int tile, int piece, int stage) {
        const int k = piece * tile_depth + chunk * 8;
        if (tile >= tiles || k >= (c.in_pitch + 15) / 16 * 16) return;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = tile * tile_rows + (me >> 3) + i * 32;
            if (row >= c.rows) row = c.rows - 1;
            if (c.stride > 1) {
                const int x = row % c.width, y = row / c.width % c.height;
                row = (row / c.width / c.height * c.in_height + y * c.stride) * c.in_width + x * c.stride;
            }
            const address from = c.in + ((long long)row * c.in_pitch + k) * 2;
            copy16(base + stage * stage_bytes + place((me >> 3) + i * 32, chunk), k < c.in_pitch ? from : c.in,
                   k < c.in_pitch ? 16 : 0);
        }
    };
    const auto activate = [&](int tile, int piece, int stage) {  // what this thread copied
        const int k = piece * tile_depth + chunk * 8;
        if (k >= c.in_pitch) return;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = tile * tile_rows + (me >> 3) + i * 32, window = (row < c.rows ? row : 0) / c.window_rows;
            swish8(shared + stage * stage_bytes + place((me >> 3) + i * 32, chunk),
                   c.gates ? (const float *)c.gates + (long long)window * c.in_pitch + k : 0);
        }
    };
    const int across = columns / 16;
    float sums[2][across][4] = {};
    int tile = blockIdx.y, piece = 0, next_tile = tile, next_piece = 0;
    const auto load_next = [&](int stage) {
        load(next_tile, next_piece, stage);
        asm volatile("cp.async.commit_group;");
        if (++next_piece == pieces) next_piece = 0, next_tile += gridDim.y;
    };
    load_next(0);
    load_next(1);
    for (int stage = 0; tile < tiles; stage = stage == stages - 1 ? 0 : stage + 1) {
        asm volatile("cp.async.wait_group 1;");
        if (c.swish) activate(tile, piece, stage);
        __syncthreads();
        load_next(stage == 0 ? stages - 1 : stage - 1);
        const u32 from = base + stage * stage_bytes, with = piece * columns + warp_column;
        const int left = c.in_pitch - piece * tile_depth, steps = left < tile_depth ? (left + 15) / 16 : tile_depth / 16;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            u32 a[2][4], b[(across + 1) / 2][4];
#pragma unroll
            for (int i = 0; i < 2; i++)
                load4(a[i], from + place(warp_row + i * 16 + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < across / 2; j++)
                load4(b[j], kept + place(with + j * 16 + (lane & 7) + ((lane >> 4) << 3), step * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < across; j++)
                    multiply(sums[i][j], a[i], b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
        }
        if (++piece < pieces) continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = tile * tile_rows + warp_row + i / 2 * 16 + i % 2 * 8 + (lane >> 2);
#pragma unroll
            for (int j = 0; j < across; j++) {
                const int column = column0 + warp_column + j * 8 + (lane & 3) * 2;
                float *sum = &sums[i / 2][j][i % 2 * 2];
                if (row < c.rows && column < c.pitch) {
                    const float2 bias = *(const float2 *)((const float *)c.bias + column);
                    const long long at = (long long)row * c.pitch + column;
                    float one = sum[0] + bias.x, two = sum[1] + bias.y;
                    if (c.added) {
                        const float2 more = floats(*(const u32 *)(c.added + at * 2));
                        one += more.x, two += more.y;
                    }
                    if (c.relu) one = one > 0 ? one : 0, two = two > 0 ? two : 0;
                    *(u32 *)(c.out + at * 2) = halves(one, two);
                }
                sum[0] = sum[1] = 0;
            }
        }
        piece = 0, tile += gridDim.y;
    }
}

extern "C" __global__ void __launch_bounds__(pointwise_threads, 2) pointwise_32(const Pointwise c) { convolve<32>(c); }
extern "C" __global__ void __launch_bounds__(pointwise_threads, 2) pointwise_64(const Pointwise c) { convolve<64>(c); }
extern "C" __global__ void __launch_bounds__(pointwise_threads, 2) pointwise_96(const Pointwise c) { convolve<96>(c); }

#endif

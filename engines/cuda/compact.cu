// A network of 3 x 3 convolutions with 64 channels, as compact upscalers are: each kernel adds the bias and applies the
// activation while it has the sums. Activations are float16 `[N, H, W, 64]`, sums float32, always in the same order.
// Each kernel takes one struct, which engines/inference/compact.py declares too.
#include "matrix.cuh"

#define CHANNELS 64

struct Compact {
    address in, out;               // float16 [N, H, W, 64]; of `first` bytes [N, H, W, 3] in; of `last` float32 out
    address weights, bias, slope;  // float16 [9, 64 out, 64 in], of `first` float32 [27, 64]; float32 [64]
    address pictures;              // of `last`: bytes [N, H, W, 3] that are added, enlarged; 0: none
    int frames, height, width;
    int factor;                    // of `last`: [N, 3 * factor * factor, H, W] becomes [N, 3, factor * H, factor * W]
    int as_bytes, places;          // of `last`: bytes [N, factor * H, factor * W, 3]; where colours go there, two bits each
    float scale;                   // of the bytes
    float black, span;             // of `as_bytes`, as the kernel `bytes` of kernels.cu takes them
};

// Whether a value is above zero decides; a slope of 1 leaves it as it is.
__device__ static inline float activated(float value, float slope) { return value > 0 ? value : value * slope; }

// A thread makes the channels of a pixel from the bytes around it.
extern "C" __global__ void __launch_bounds__(128) first(const Compact c) {
    __shared__ float weights[27 * CHANNELS];
    for (int i = threadIdx.x; i < 27 * CHANNELS; i += 128) weights[i] = ((const float *)c.weights)[i];
    __syncthreads();
    const long long pixels = (long long)c.frames * c.height * c.width;
    for (long long p = blockIdx.x * 128ll + threadIdx.x; p < pixels; p += gridDim.x * 128ll) {
        const int x = p % c.width, y = p / c.width % c.height;
        const u8 *picture = (const u8 *)c.in + (p / c.width / c.height) * c.height * c.width * 3;
        float around[27];
#pragma unroll
        for (int tap = 0; tap < 9; tap++) {
            const int row = y + tap / 3 - 1, column = x + tap % 3 - 1;
            const bool inside = row >= 0 && row < c.height && column >= 0 && column < c.width;
            const u8 *at = picture + ((long long)row * c.width + column) * 3;
#pragma unroll
            for (int k = 0; k < 3; k++) around[tap * 3 + k] = inside ? at[k] * c.scale : 0;
        }
        uint4 *out = (uint4 *)((u8 *)c.out + p * ROW_BYTES);
#pragma unroll
        for (int eight = 0; eight < 8; eight++) {
            float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
            for (int k = 0; k < 27; k++) {
                const float4 *w = (const float4 *)(weights + k * CHANNELS + eight * 8);
                const float4 low = w[0], high = w[1];
                sums[0] += around[k] * low.x, sums[1] += around[k] * low.y;
                sums[2] += around[k] * low.z, sums[3] += around[k] * low.w;
                sums[4] += around[k] * high.x, sums[5] += around[k] * high.y;
                sums[6] += around[k] * high.z, sums[7] += around[k] * high.w;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int channel = eight * 8 + i;
                sums[i] = activated(sums[i] + ((const float *)c.bias)[channel], ((const float *)c.slope)[channel]);
            }
            out[eight] = make_uint4(halves(sums[0], sums[1]), halves(sums[2], sums[3]), halves(sums[4], sums[5]),
                                    halves(sums[6], sums[7]));
        }
    }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

const int tile_height = 4, tile_width = 32, halo_height = tile_height + 2, halo_width = tile_width + 2;
const int team_threads = 128;  // four warps: two by two of 64 pixels and 32 channels
const int weights_bytes = 9 * CHANNELS * ROW_BYTES, halo_bytes = halo_height * halo_width * ROW_BYTES;

// A byte of a value, as the kernel `bytes` of kernels.cu makes it.
__device__ static inline u8 byte(const Compact &c, float value) {
    value = (value - c.black) / c.span;
    return (u8)rintf((value > 0 ? (value < 1 ? value : 1) : 0) * 255);
}

// Writes the picture of a tile, which lies in shared memory, as far as it is inside.
__device__ static inline void copy_picture(const Compact &c, const u8 *tile, int frame, int y0, int x0, int me) {
    const int line = tile_width * c.factor * 3, pitch = c.width * c.factor * 3, begin = x0 * c.factor * 3;
    const int used = pitch - begin < line ? pitch - begin : line;
    const int rows = (c.height - y0 < tile_height ? c.height - y0 : tile_height) * c.factor;
    u8 *out = (u8 *)c.out + ((address)frame * c.height + y0) * c.factor * pitch + begin;
    const int step = pitch % 4 ? 1 : 4;  // bytes at a time
    for (int i = me * step; i < rows * line; i += team_threads * step) {
        const int row = i / line, at = i % line;
        if (at >= used) continue;
        if (step == 4)
            *(u32 *)(out + (address)row * pitch + at) = *(const u32 *)(tile + i);
        else
            out[(address)row * pitch + at] = tile[i];
    }
}

// A block keeps all weights in shared memory. Its teams take tiles of 4 x 32 pixels with their surroundings: while one
// loads, the others multiply.
template <int teams, bool last_layer>
__device__ static inline void convolve(const Compact &c) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = (u32)__cvta_generic_to_shared(shared);
    const int team = threadIdx.x / team_threads, me = threadIdx.x % team_threads, lane = me & 31, warp = me >> 5;
    const int rows_of = warp % 2, channels_of = warp / 2;
    const u32 tile = base + weights_bytes + team * halo_bytes;
    for (int i = threadIdx.x; i < 9 * CHANNELS * 8; i += team_threads * teams)
        copy16(base + place(i >> 3, i & 7), c.weights + i * 16, 16);
    asm volatile("cp.async.wait_all;");
    __syncthreads();
    const int across = (c.width + tile_width - 1) / tile_width, down = (c.height + tile_height - 1) / tile_height;
    const int tiles = across * down * c.frames, channel = channels_of * 32 + (lane & 3) * 2;
    float bias[4][2], slope[4][2];
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            bias[j][h] = ((const float *)c.bias)[channel + j * 8 + h];
            slope[j][h] = ((const float *)c.slope)[channel + j * 8 + h];
        }
    int corner[4];
#pragma unroll
    for (int i = 0; i < 4; i++) corner[i] = (2 * rows_of + (i >> 1)) * halo_width + (i & 1) * 16 + (lane & 15);
    const u32 a_half = lane >> 4, b_row = (lane & 7) + ((lane >> 4) << 3) + channels_of * 32, b_half = (lane >> 3) & 1;
    for (int t = blockIdx.x * teams + team; t < tiles; t += gridDim.x * teams) {
        const int frame = t / (across * down), y0 = t / across % down * tile_height, x0 = t % across * tile_width;
        const address picture = c.in + (address)frame * c.height * c.width * ROW_BYTES;
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(team_threads) : "memory");
        for (int i = me; i < halo_height * halo_width * 8; i += team_threads) {
            const int q = i >> 3, y = y0 + q / halo_width - 1, x = x0 + q % halo_width - 1;
            const bool inside = y >= 0 && y < c.height && x >= 0 && x < c.width;
            const address from = picture + ((address)y * c.width + x) * ROW_BYTES + (i & 7) * 16;
            copy16(tile + place(q, i & 7), inside ? from : c.in, inside ? 16 : 0);
        }
        asm volatile("cp.async.wait_all;");
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(team_threads) : "memory");
        float sums[4][4][4] = {};
#pragma unroll 1
        for (int tap = 0; tap < 9; tap++) {
            const int shift = tap / 3 * halo_width + tap % 3;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 a[4][4], b[2][4];
#pragma unroll
                for (int j = 0; j < 2; j++) load4(b[j], base + place(tap * CHANNELS + b_row + j * 16, k * 2 + b_half));
#pragma unroll
                for (int i = 0; i < 4; i++) load4(a[i], tile + place(corner[i] + shift, k * 2 + a_half));
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        multiply(sums[i][j], a[i], b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
            }
        }
        u8 *picture_tile = shared + weights_bytes + team * halo_bytes;
        if (last_layer && c.as_bytes) asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(team_threads) : "memory");
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int y = y0 + 2 * rows_of + (i >> 1), x = x0 + (i & 1) * 16 + half * 8 + (lane >> 2);
                if (y >= c.height || x >= c.width) continue;
                const address pixel = ((address)frame * c.height + y) * c.width + x;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float one = activated(sums[i][j][half * 2] + bias[j][0], slope[j][0]);
                    const float two = activated(sums[i][j][half * 2 + 1] + bias[j][1], slope[j][1]);
                    if (!last_layer) *(u32 *)(c.out + pixel * ROW_BYTES + (channel + j * 8) * 2) = halves(one, two);
                    for (int h = 0; last_layer && h < 2; h++) {
                        const int at = channel + j * 8 + h, square = c.factor * c.factor, colour = at / square;
                        if (colour >= 3) continue;
                        const int down = at % square / c.factor, along = at % c.factor;
                        const float more = c.pictures ? ((const u8 *)c.pictures)[pixel * 3 + colour] * c.scale : 0;
                        const float value = (h ? two : one) + more;
                        if (c.as_bytes) {
                            const int row = (y - y0) * c.factor + down, column = (x - x0) * c.factor + along;
                            picture_tile[(row * tile_width * c.factor + column) * 3 + (c.places >> 2 * colour & 3)] = byte(c, value);
                            continue;
                        }
                        const address plane = ((address)frame * 3 + colour) * c.factor * c.height + y * c.factor + down;
                        ((float *)c.out)[plane * c.factor * c.width + x * c.factor + along] = value;
                    }
                }
            }
        if (last_layer && c.as_bytes) {
            asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(team_threads) : "memory");
            copy_picture(c, picture_tile, frame, y0, x0, me);
        }
    }
}

extern "C" __global__ void __launch_bounds__(team_threads * 3, 1) middle_3(const Compact c) { convolve<3, false>(c); }
extern "C" __global__ void __launch_bounds__(team_threads, 1) middle_1(const Compact c) { convolve<1, false>(c); }
extern "C" __global__ void __launch_bounds__(team_threads * 3, 1) last_3(const Compact c) { convolve<3, true>(c); }
extern "C" __global__ void __launch_bounds__(team_threads, 1) last_1(const Compact c) { convolve<1, true>(c); }

#endif

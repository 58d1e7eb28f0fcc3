// A network of 3 x 3 convolutions with 64 channels, as compact upscalers are: each kernel adds the bias and applies the
// activation while it has the sums. Activations are float16 `[N, H, W, 64]`, sums float32, always in the same order.
// Each kernel takes one struct, which engines/inference/compact.py declares too.
#define CHANNELS 64
#define ROW_BYTES 128  // of the channels of a pixel

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long address;

struct Compact {
    address in, out;               // float16 [N, H, W, 64]; of `first` bytes [N, H, W, 3] in; of `last` float32 out
    address weights, bias, slope;  // float16 [9, 64 out, 64 in], of `first` float32 [27, 64]; float32 [64]
    address pictures;              // of `last`: bytes [N, H, W, 3] that are added, enlarged; 0: none
    int frames, height, width;
    int factor;                    // of `last`: [N, 3 * factor * factor, H, W] becomes [N, 3, factor * H, factor * W]
    float scale;                   // of the bytes
};

struct Pointwise {
    address in, out, weights, bias;  // float16 [rows, in_pitch], [rows, pitch], [columns, depth]; float32 [columns]
    address gates;                   // float32 [N, in_pitch] that the input is multiplied by; 0: none
    address added;                   // float16 [rows, pitch] that is added; 0: none
    int rows, in_pitch, pitch, depth, window_rows;
    int swish, relu;                                    // before and after
    int stride, height, width, in_height, in_width;  // of a stride above 1
};

// Whether a value is above zero decides; a slope of 1 leaves it as it is.
__device__ static inline float activated(float value, float slope) { return value > 0 ? value : value * slope; }

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

const int tile_height = 4, tile_width = 32, halo_height = tile_height + 2, halo_width = tile_width + 2;
const int team_threads = 128;  // four warps: two by two of 64 pixels and 32 channels
const int weights_bytes = 9 * CHANNELS * ROW_BYTES, halo_bytes = halo_height * halo_width * ROW_BYTES;

// Where 16 bytes of a row of 128 lie in shared memory: eight rows one below the other are in different banks.
__device__ static inline u32 place(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }

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
                        const int row = y * c.factor + at % square / c.factor, column = x * c.factor + at % c.factor;
                        const address plane = ((address)frame * 3 + colour) * c.factor * c.height + row;
                        const float more = c.pictures ? ((const u8 *)c.pictures)[pixel * 3 + colour] * c.scale : 0;
                        ((float *)c.out)[plane * c.factor * c.width + column] = (h ? two : one) + more;
                    }
                }
            }
    }
}

extern "C" __global__ void __launch_bounds__(team_threads * 3, 1) middle_3(const Compact c) { convolve<3, false>(c); }
extern "C" __global__ void __launch_bounds__(team_threads, 1) middle_1(const Compact c) { convolve<1, false>(c); }
extern "C" __global__ void __launch_bounds__(team_threads * 3, 1) last_3(const Compact c) { convolve<3, true>(c); }
extern "C" __global__ void __launch_bounds__(team_threads, 1) last_1(const Compact c) { convolve<1, true>(c); }

const int tile_rows = 128, tile_columns = 64, tile_depth = 64, pointwise_threads = 256;
const int stage_bytes = (tile_rows + tile_columns) * ROW_BYTES;

__device__ static inline float swish(float value) { return value / (1 + __expf(-value)); }

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

// The layers of X3D networks: a first convolution of bytes, depthwise convolutions over time and space, gates of
// channels, and convolutions of 1 x 1 x 1. Activations are float16 `[N, T, H, W, C]`, C padded to a multiple of 8 by
// zeros; sums are float32, always in the same order. Each kernel takes one struct, which engines/inference/x3d.py
// declares too.
#include "matrix.cuh"

typedef long long wide;

struct First {
    address in, out, weights;  // bytes [N, T, H, W, 3]; float16 [N, T, height, width, pitch]; float32 [27, pitch]
    int pictures, in_height, in_width, height, width, pitch, stride;
    float scale, shift;  // of the bytes
};

struct Depthwise {
    address in, out, weights, bias;  // float32 [taps, pitch], [pitch]
    address sums;                    // float32 [N, height * strips, pitch]: of the outputs of a strip; 0: none
    int windows, frames, in_height, in_width, height, width, pitch;
    int relu, swish;  // after it; the sums are of values before
};

struct Gate {
    address sums, out;                              // float32 [N, pitch]
    address narrow, narrow_bias, wide, wide_bias;  // float32 [narrow, pitch], [narrow], [narrow, pitch], [pitch]
    int strips, values, pitch, channels;            // strips and values of a window; narrow channels
};

const int places = 4;  // side by side, that a thread makes

// A thread makes eight channels of each place.
extern "C" __global__ void __launch_bounds__(128) first(const First c) {
    const int eights = c.pitch / 8, strips = (c.width + places - 1) / places;
    const wide me = blockIdx.x * 128ll + threadIdx.x;
    const int eight = me % eights, strip = me / eights % strips, y = me / eights / strips % c.height;
    const wide picture = me / eights / strips / c.height;
    if (picture >= c.pictures) return;
    const u8 *in = (const u8 *)c.in + picture * c.in_height * c.in_width * 3;
    float sums[places][8] = {};
#pragma unroll
    for (int tap = 0; tap < 9; tap++) {
        const int row = y * c.stride + tap / 3 - 1, left = strip * places * c.stride + tap % 3 - 1;
        if (row < 0 || row >= c.in_height) continue;
#pragma unroll
        for (int k = 0; k < 3; k++) {
            const float4 *w = (const float4 *)c.weights + ((tap * 3 + k) * eights + eight) * 2;
            const float4 low = __ldg(w), high = __ldg(w + 1);
#pragma unroll
            for (int p = 0; p < places; p++) {
                const int column = left + p * c.stride;
                const bool inside = column >= 0 && column < c.in_width;
                const float value = inside ? in[((wide)row * c.in_width + column) * 3 + k] * c.scale + c.shift : 0;
                sums[p][0] += value * low.x, sums[p][1] += value * low.y, sums[p][2] += value * low.z;
                sums[p][3] += value * low.w, sums[p][4] += value * high.x, sums[p][5] += value * high.y;
                sums[p][6] += value * high.z, sums[p][7] += value * high.w;
            }
        }
    }
    uint4 *out = (uint4 *)c.out + ((picture * c.height + y) * c.width + strip * places) * eights + eight;
#pragma unroll
    for (int p = 0; p < places; p++)
        if (strip * places + p < c.width)
            out[p * eights] = make_uint4(halves(sums[p][0], sums[p][1]), halves(sums[p][2], sums[p][3]),
                                         halves(sums[p][4], sums[p][5]), halves(sums[p][6], sums[p][7]));
}

// A thread makes two channels of four places side by side, of all frames of a window: each frame is read once, and is
// part of the sums of `times` frames at once.
template <int times, int side, int stride>
__device__ static inline void depthwise(const Depthwise &c) {
    const int span = (places - 1) * stride + side, taps = times * side * side;
    const int pairs = c.pitch / 2, strips = (c.width + places - 1) / places;
    const wide me = blockIdx.x * (wide)blockDim.x + threadIdx.x;
    const int pair = me % pairs, strip = me / pairs % strips, y = me / pairs / strips % c.height;
    const int window = me / pairs / strips / c.height;
    if (window >= c.windows) return;
    float2 weights[taps], sums[times][places], total = {0, 0};
    for (int i = 0; i < taps; i++) weights[i] = ((const float2 *)c.weights)[i * pairs + pair];
    const float2 bias = ((const float2 *)c.bias)[pair];
    for (int i = 0; i < times; i++)
        for (int p = 0; p < places; p++) sums[i][p] = {0, 0};
    const int left = strip * places * stride - side / 2, top = y * stride - side / 2;
    const u32 *in = (const u32 *)c.in + (wide)window * c.frames * c.in_height * c.in_width * pairs + pair;
    u32 *out = (u32 *)c.out + (((wide)window * c.frames * c.height + y) * c.width + strip * places) * pairs + pair;
#pragma unroll 1
    for (int t = 0; t < c.frames + times / 2; t++) {
        u32 values[side][span];  // all that it reads of a frame, at once
#pragma unroll
        for (int dy = 0; dy < side; dy++) {
            const int row = top + dy;
            const u32 *at = in + ((wide)(t * c.in_height + row) * c.in_width + left) * pairs;
#pragma unroll
            for (int i = 0; i < span; i++) {
                const bool inside = row >= 0 && row < c.in_height && left + i >= 0 && left + i < c.in_width;
                values[dy][i] = inside && t < c.frames ? __ldg(at + i * pairs) : 0;
            }
        }
#pragma unroll
        for (int dy = 0; dy < side; dy++)
#pragma unroll
            for (int x = 0; x < span; x++) {
                const float2 value = floats(values[dy][x]);
#pragma unroll
                for (int p = 0; p < places; p++) {
                    const int dx = x - p * stride;
                    if (dx < 0 || dx >= side) continue;
#pragma unroll
                    for (int i = 0; i < times; i++) {
                        const float2 w = weights[((times - 1 - i) * side + dy) * side + dx];
                        sums[i][p].x += value.x * w.x;
                        sums[i][p].y += value.y * w.y;
                    }
                }
            }
        const int made = t - times / 2;
#pragma unroll
        for (int p = 0; p < places; p++) {
            float2 value = {sums[0][p].x + bias.x, sums[0][p].y + bias.y};
#pragma unroll
            for (int i = 0; i + 1 < times; i++) sums[i][p] = sums[i + 1][p];
            sums[times - 1][p] = {0, 0};
            if (made < 0 || strip * places + p >= c.width) continue;
            if (c.relu) value = {value.x > 0 ? value.x : 0, value.y > 0 ? value.y : 0};
            total.x += value.x, total.y += value.y;
            if (c.swish) value = {swish(value.x), swish(value.y)};
            out[((wide)made * c.height * c.width + p) * pairs] = halves(value.x, value.y);
        }
    }
    if (c.sums) ((float2 *)c.sums)[((wide)(window * c.height + y) * strips + strip) * pairs + pair] = total;
}

extern "C" __global__ void __launch_bounds__(128) space_1(const Depthwise c) { depthwise<3, 3, 1>(c); }
extern "C" __global__ void __launch_bounds__(128) space_2(const Depthwise c) { depthwise<3, 3, 2>(c); }
extern "C" __global__ void __launch_bounds__(128) time_5(const Depthwise c) { depthwise<5, 1, 1>(c); }

#ifndef RIGFLOW_ON_HOST  // its threads work together

// A block makes the gates of a window: means of channels, two layers, sigmoid.
const int gate_threads = 512, most_channels = 1024, most_narrow = 128;

extern "C" __global__ void __launch_bounds__(gate_threads) gate(const Gate c) {
    __shared__ float partial[gate_threads + most_channels], narrow[most_narrow];
    float *means = partial + gate_threads;
    const float *sums = (const float *)c.sums + (wide)blockIdx.x * c.strips * c.pitch;
    const int me = threadIdx.x, groups = gate_threads / c.pitch > 0 ? gate_threads / c.pitch : 1;
    for (int channel = groups > 1 ? me % c.pitch : me; channel < c.pitch; channel += gate_threads) {
        const int group = groups > 1 ? me / c.pitch : 0;
        float sum = 0;
        if (group < groups)
            for (int i = group; i < c.strips; i += groups) sum += sums[(wide)i * c.pitch + channel];
        if (groups > 1)
            partial[me] = sum;
        else
            means[channel] = sum / c.values;
    }
    __syncthreads();
    if (groups > 1 && me < c.pitch) {
        float sum = 0;
        for (int i = 0; i < groups; i++) sum += partial[i * c.pitch + me];
        means[me] = sum / c.values;
    }
    __syncthreads();
    for (int unit = me / 32; unit < c.channels; unit += gate_threads / 32) {
        float sum = 0;
        for (int i = me % 32; i < c.pitch; i += 32) sum += means[i] * ((const float *)c.narrow)[unit * c.pitch + i];
        for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
        sum += ((const float *)c.narrow_bias)[unit];
        if (me % 32 == 0) narrow[unit] = sum > 0 ? sum : 0;
    }
    __syncthreads();
    for (int channel = me; channel < c.pitch; channel += gate_threads) {
        float sum = ((const float *)c.wide_bias)[channel];
        for (int unit = 0; unit < c.channels; unit++)
            sum += narrow[unit] * ((const float *)c.wide)[unit * c.pitch + channel];
        ((float *)c.out)[(wide)blockIdx.x * c.pitch + channel] = 1 / (1 + __expf(-sum));
    }
}

#endif

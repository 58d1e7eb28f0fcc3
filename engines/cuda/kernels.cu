// Frames to arrays, and arrays to batches. Each kernel takes one struct, which engines/cuda/kernels.py declares too.
#ifdef RIGFLOW_ON_HOST  // tests compile this file with a C++ compiler, to hold it against the CPU's transforms
#include RIGFLOW_ON_HOST
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned long long address;

const int most_frames = 32;  // of one launch

// Pictures of one kind: taps across to 15 bits, taps down to 8 bits, then the matrix; see engines/cuda/filters.py.
struct Scale {
    address frames[4 * most_frames];                         // of each: luma, Cb, Cr, and where it goes
    address luma_x_first, luma_x, luma_y_first, luma_y;      // int32 [W], int16 [W, K], ...
    address chroma_x_first, chroma_x, chroma_y_first, chroma_y;
    int luma_x_taps, luma_y_taps, chroma_x_taps, chroma_y_taps;
    int luma_pitch, chroma_pitch;   // bytes from line to line
    int chroma_step;                // samples from one to the next: 2 where Cb and Cr alternate
    int deep, low_bits, across;     // two bytes a sample; its unused low bits; bits to drop after the taps across
    int left, top, width, height;   // what to compute of the scaled picture
    int stride_x, stride_y;         // bytes, in `out`
    int gray, each, stretch;        // of luma alone; chroma for each pixel; gray is made of luma of limited range
    int colours[6];
};

__device__ static inline int sample(address line, int at, int deep, int low_bits) {
    return deep ? ((const u16 *)line)[at] >> low_bits : ((const u8 *)line)[at];
}

__device__ static inline int across(address line, const int *first, const short *weights, int taps, int x, int step,
                                    const Scale &s) {
    const int at = first[x];
    const short *w = weights + (size_t)x * taps;
    int sum = 0;
    for (int j = 0; j < taps; j++) sum += w[j] * sample(line, (at + j) * step, s.deep, s.low_bits);
    sum >>= s.across;
    return sum > 32767 ? 32767 : sum;
}

__device__ static inline int clip8(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

__device__ static inline int clip30(long long value) {
    return (int)((value < 0 ? 0 : value > 0x3fffffff ? 0x3fffffff : value) >> 22);
}

// Swscale's pattern for samples of more than 8 bits, of 128 a level; others are rounded to nearest.
__device__ static const u8 dither[8][8] = {
    {36, 68, 60, 92, 34, 66, 58, 90},  {100, 4, 124, 28, 98, 2, 122, 26},
    {52, 84, 44, 76, 50, 82, 42, 74},  {116, 20, 108, 12, 114, 18, 106, 10},
    {32, 64, 56, 88, 38, 70, 62, 94},  {96, 0, 120, 24, 102, 6, 126, 30},
    {48, 80, 40, 72, 54, 86, 46, 78},  {112, 16, 104, 8, 118, 22, 110, 14},
};

// A block is 32 outputs of a line of a frame; its rows share the lines that each looks at.
extern "C" __global__ void scale(const Scale s) {
    __shared__ int sums[3][8][32];
    const int blocks = (s.width + 31) / 32, frame = 4 * (blockIdx.x / blocks);
    const int column = blockIdx.x % blocks * 32 + threadIdx.x, row = blockIdx.y;
    const address in = s.frames[frame], cb = s.frames[frame + 1], cr = s.frames[frame + 2];
    const int lane = threadIdx.x, part = threadIdx.y, parts = blockDim.y;
    const int x = s.left + (column < s.width ? column : s.width - 1), y = s.top + row;
    int sum = 0;
    const int *first = (const int *)s.luma_y_first;
    const short *weights = (const short *)s.luma_y + (size_t)y * s.luma_y_taps;
    for (int j = part; j < s.luma_y_taps; j += parts) {
        int value = across(in + (size_t)(first[y] + j) * s.luma_pitch, (const int *)s.luma_x_first,
                           (const short *)s.luma_x, s.luma_x_taps, x, 1, s);
        if (s.stretch) value = ((value > 30189 ? 30189 : value) * 19077 - 39057361) >> 14;
        sum += weights[j] * value;
    }
    sums[0][part][lane] = sum;
    if (!s.gray) {
        const int at = s.each ? x : x >> 1;
        int blue = 0, red = 0;
        first = (const int *)s.chroma_y_first;
        weights = (const short *)s.chroma_y + (size_t)y * s.chroma_y_taps;
        for (int j = part; j < s.chroma_y_taps; j += parts) {
            const size_t line = (size_t)(first[y] + j) * s.chroma_pitch;
            blue += weights[j] * across(cb + line, (const int *)s.chroma_x_first, (const short *)s.chroma_x,
                                        s.chroma_x_taps, at, s.chroma_step, s);
            red += weights[j] * across(cr + line, (const int *)s.chroma_x_first, (const short *)s.chroma_x,
                                       s.chroma_x_taps, at, s.chroma_step, s);
        }
        sums[1][part][lane] = blue;
        sums[2][part][lane] = red;
    }
    __syncthreads();
    if (part || column >= s.width) return;
    int total[3] = {0, 0, 0};
    for (int plane = 0; plane < (s.gray ? 1 : 3); plane++)
        for (int i = 0; i < parts; i++) total[plane] += sums[plane][i][lane];
    u8 *out = (u8 *)s.frames[frame + 3] + (long long)column * s.stride_x + (long long)row * s.stride_y;
    if (s.gray) {
        *out = clip8((total[0] + ((s.deep ? dither[y & 7][x & 7] : 64) << 12)) >> 19);
        return;
    }
    int rgb[3];
    if (s.each) {
        const long long luma = (long long)(((total[0] + 512) >> 10) - s.colours[1]) * s.colours[0] + (1 << 21);
        const long long blue = (total[1] + 512 - (128 << 19)) >> 10, red = (total[2] + 512 - (128 << 19)) >> 10;
        rgb[0] = clip30(luma + red * s.colours[2]);
        rgb[1] = clip30(luma + blue * s.colours[4] + red * s.colours[5]);
        rgb[2] = clip30(luma + blue * s.colours[3]);
    } else {
        const int luma = clip8((total[0] + (1 << 18)) >> 19);
        const int blue = clip8((total[1] + (1 << 18)) >> 19), red = clip8((total[2] + (1 << 18)) >> 19);
        const int moves[3] = {
            ((red * s.colours[2]) >> 16) - (s.colours[2] >> 9),
            ((blue * s.colours[4]) >> 16) - (s.colours[4] >> 9) + ((red * s.colours[5]) >> 16) - (s.colours[5] >> 9),
            ((blue * s.colours[3]) >> 16) - (s.colours[3] >> 9),
        };
        for (int c = 0; c < 3; c++)
            rgb[c] = clip8((s.colours[0] * (luma + moves[c]) - s.colours[1] + 0x8000) >> 16);
    }
    for (int c = 0; c < 3; c++) out[c] = rgb[c];
}

// Pictures `[H, W, channels]` uint8 resized by a filter of each side, in fixed point; see engines/cuda/resampling.py.
struct Resample {
    address frames[2 * most_frames];       // of each: where it is read and where it is written
    address x_first, x, y_first, y;        // int32 [W], int32 [W, K], ...
    int x_taps, y_taps, x_bits, y_bits;    // bits to drop of a sum; 0 of one across: it stays exact
    int pitch, channels;                   // bytes from line to line, of what is read; 1 or 3
    int left, top, width, height;          // what to compute of the resized picture
    int stride_x, stride_y;                // bytes, where it is written
};

__device__ static inline int rounded(int sum, int bits) { return bits ? clip8((sum + (1 << (bits - 1))) >> bits) : sum; }

template <int channels> __device__ static inline void resampled(const Resample &r, address in, address out, int x, int y) {
    const int *across = (const int *)r.x + (size_t)x * r.x_taps, *down = (const int *)r.y + (size_t)y * r.y_taps;
    const u8 *line = (const u8 *)in + (size_t)((const int *)r.y_first)[y] * r.pitch + ((const int *)r.x_first)[x] * channels;
    int total[channels] = {};
    for (int j = 0; j < r.y_taps; j++, line += r.pitch) {
        int sum[channels] = {};
        for (int k = 0; k < r.x_taps; k++)
            for (int c = 0; c < channels; c++) sum[c] += across[k] * line[k * channels + c];
        for (int c = 0; c < channels; c++) total[c] += down[j] * rounded(sum[c], r.x_bits);
    }
    for (int c = 0; c < channels; c++) ((u8 *)out)[c] = rounded(total[c], r.y_bits);
}

extern "C" __global__ void resample(const Resample r) {
    const int blocks = (r.width * r.height + blockDim.x - 1) / blockDim.x, frame = 2 * (blockIdx.x / blocks);
    const int at = blockIdx.x % blocks * blockDim.x + threadIdx.x;
    if (at >= r.width * r.height) return;
    const int column = at % r.width, row = at / r.width;
    const address in = r.frames[frame], out = r.frames[frame + 1];
    const address to = out + (long long)column * r.stride_x + (long long)row * r.stride_y;
    if (r.channels == 3) resampled<3>(r, in, to, r.left + column, r.top + row);
    else resampled<1>(r, in, to, r.left + column, r.top + row);
}

// Planes of one kind as they are, in 8 bits: every `step`-th sample of each line.
struct Plane {
    address frames[2 * most_frames];  // of each: where it is read, and where it goes
    int pitch, step, deep, drop;  // bits to drop from a sample of two bytes
    int width, height, stride_x, stride_y;
};

extern "C" __global__ void plane(const Plane p) {
    const int blocks = (p.width + blockDim.x - 1) / blockDim.x, frame = 2 * (blockIdx.x / blocks);
    const int x = blockIdx.x % blocks * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x >= p.width) return;
    const address line = p.frames[frame] + (size_t)y * p.pitch;
    int value = sample(line, x * p.step, p.deep, 0);
    if (p.drop) value = clip8((value + (1 << (p.drop - 1))) >> p.drop);
    ((u8 *)p.frames[frame + 1])[(long long)x * p.stride_x + (long long)y * p.stride_y] = value;
}

// Rows whose bytes are all one value.
struct Fill {
    address frames[most_frames], bytes;
    int value, blocks;  // of a row
};

extern "C" __global__ void fill(const Fill f) {
    u8 *out = (u8 *)f.frames[blockIdx.x / f.blocks];
    const unsigned four = f.value * 0x01010101u;
    const address at = blockIdx.x % f.blocks * blockDim.x + threadIdx.x, all = (address)f.blocks * blockDim.x;
    for (address i = at; i < f.bytes / 16; i += all) ((uint4 *)out)[i] = {four, four, four, four};
    for (address i = f.bytes / 16 * 16 + at; i < f.bytes; i += all) out[i] = f.value;
}

// Three planes of a picture, or one of a grey picture, as NV12 of even sides: cut to them, or the last line and column
// repeated as far as they go.
struct Nv12 {
    address luma, cb, cr, out;
    int height, width, chroma_height, chroma_width;  // of the planes, which have no gaps between lines
    int rows, columns, pitch;                        // of the luma to make, and bytes from line to line
};

extern "C" __global__ void nv12(const Nv12 n) {
    const int begin = 4 * (blockIdx.x * blockDim.x + threadIdx.x), y = blockIdx.y;  // four bytes a thread: pitch has them
    if (begin >= n.columns) return;
    unsigned four = 0;
    const bool inside = y < n.height && begin + 4 <= n.width && ((n.luma | n.width) & 3) == 0;
    if (inside) four = *(const unsigned *)(n.luma + (size_t)y * n.width + begin);
    for (int x = begin; x < begin + 4 && !inside; x++) {
        unsigned value = 128;
        if (y < n.rows) {
            const int row = y < n.height ? y : n.height - 1, column = x < n.width ? x : n.width - 1;
            value = ((const u8 *)n.luma)[(size_t)row * n.width + column];
        } else if (n.cb) {
            const int row = y - n.rows < n.chroma_height ? y - n.rows : n.chroma_height - 1;
            const int column = x / 2 < n.chroma_width ? x / 2 : n.chroma_width - 1;
            value = ((const u8 *)(x % 2 ? n.cr : n.cb))[(size_t)row * n.chroma_width + column];
        }
        four |= value << 8 * (x - begin);
    }
    *(unsigned *)((u8 *)n.out + (size_t)y * n.pitch + begin) = four;
}

// Rows from anywhere, one after the other: row i lies at rows[i].
struct Gather {
    address rows, out;
    int row_bytes, count;
};

extern "C" __global__ void gather(const Gather g) {
    const address in = ((const address *)g.rows)[blockIdx.y];
    const address out = g.out + (size_t)blockIdx.y * g.row_bytes;
    const int at = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
    if (((in | out | g.row_bytes) & 15) == 0) {
        for (int i = at; i < g.row_bytes / 16; i += all) ((uint4 *)out)[i] = ((const uint4 *)in)[i];
    } else if (((in | out | g.row_bytes) & 3) == 0) {
        for (int i = at; i < g.row_bytes / 4; i += all) ((unsigned *)out)[i] = ((const unsigned *)in)[i];
    } else {
        for (int i = at; i < g.row_bytes; i += all) ((u8 *)out)[i] = ((const u8 *)in)[i];
    }
}

// Rectangles of pictures, each copied to a place of its own. Beyond what there is to read, right and below, the last
// pixels are repeated, or mirrored without the last one.
struct Rectangle {
    address from, to;
    int from_pitch, to_pitch;      // bytes from line to line
    int height, width;             // what is written, in lines and pixels
    int read_height, read_width;   // what there is to read
};

struct Copy {
    address rectangles;
    int pixel_bytes, mirrored;
};

__device__ static inline int inside(int at, int length, int mirrored) {
    if (at < length) return at;
    if (!mirrored || length == 1) return length - 1;
    at %= 2 * (length - 1);
    return at < length ? at : 2 * (length - 1) - at;
}

extern "C" __global__ void copy(const Copy c) {
    const Rectangle r = ((const Rectangle *)c.rectangles)[blockIdx.y];
    for (int row = blockIdx.x; row < r.height; row += gridDim.x) {
        const u8 *from = (const u8 *)r.from + (size_t)inside(row, r.read_height, c.mirrored) * r.from_pitch;
        u8 *to = (u8 *)r.to + (size_t)row * r.to_pitch;
        const int plain = (r.width < r.read_width ? r.width : r.read_width) * c.pixel_bytes;
        if ((((address)from | (address)to | plain) & 3) == 0)
            for (int at = threadIdx.x; at < plain / 4; at += blockDim.x) ((unsigned *)to)[at] = ((const unsigned *)from)[at];
        else
            for (int at = threadIdx.x; at < plain; at += blockDim.x) to[at] = from[at];
        for (int at = plain + threadIdx.x; at < r.width * c.pixel_bytes; at += blockDim.x)
            to[at] = from[inside(at / c.pixel_bytes, r.read_width, c.mirrored) * c.pixel_bytes + at % c.pixel_bytes];
    }
}

// Whether two rectangles of bytes differ: 1 for each pair that does; the others are left as they are.
struct Pair {
    address one, other;
    int pitch, height, width, unused;
};

struct Differ {
    address pairs, out;  // out: int32
};

extern "C" __global__ void differ(const Differ d) {
    const Pair p = ((const Pair *)d.pairs)[blockIdx.y];
    bool differs = false;
    for (int row = blockIdx.x; row < p.height; row += gridDim.x) {
        const u8 *one = (const u8 *)p.one + (size_t)row * p.pitch, *other = (const u8 *)p.other + (size_t)row * p.pitch;
        for (int at = threadIdx.x; at < p.width; at += blockDim.x) differs |= one[at] != other[at];
    }
    if (differs) ((int *)d.out)[blockIdx.y] = 1;
}

// RGB `[H, W, 3]` of even sides as planes of 4:2:0, in the integers of swscale; see engines/cuda/yuv.py.
struct Yuv420 {
    address pictures;          // of each, four addresses: R, G, B together, then Y, Cb and Cr, which have no gaps
    address first, weights;    // int32, int16: taps down for each line of chroma
    int taps, height, width;
    int matrix[9];             // of R, G and B to Y, Cb and Cr, 15 bits of fraction
};

__device__ static inline int doubled15(int value) { return value > 16383 ? 32767 : 2 * value; }

// Up to four pixels of a line, three values each.
__device__ static inline void four_pixels(address from, int count, bool aligned, int *rgb) {
    if (aligned)
        for (int i = 0; i < 12; i++) rgb[i] = ((const unsigned *)from)[i / 4] >> 8 * (i % 4) & 255;
    else
        for (int i = 0; i < 12; i++) rgb[i] = i < 3 * count ? ((const u8 *)from)[i] : 0;
}

const int yuv_lines = 4;  // of chroma a thread: their filters read the same lines of the picture

extern "C" __global__ void yuv420(const Yuv420 v) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x, across = (v.width + 3) / 4, lines = v.height / 2;
    const int x = at % across * 4, y = at / across * yuv_lines;
    if (y >= lines) return;
    const address *planes = (const address *)v.pictures + 4 * blockIdx.y, picture = planes[0] + 3 * x;
    const int count = v.width - x < 4 ? v.width - x : 4, last = y + yuv_lines < lines ? y + yuv_lines : lines;
    const bool aligned = count == 4 && ((planes[0] | v.width) & 3) == 0;
    const int *m = v.matrix, *first = (const int *)v.first;
    int rgb[12];
    for (int line = 2 * y; line < 2 * last; line++) {
        four_pixels(picture + (size_t)3 * line * v.width, count, aligned, rgb);
        u8 *out = (u8 *)planes[1] + (size_t)line * v.width + x;
        for (int n = 0; n < 4; n++) {
            const int luma = (m[0] * rgb[3 * n] + m[1] * rgb[3 * n + 1] + m[2] * rgb[3 * n + 2] + (32 << 14) + (1 << 8)) >> 9;
            if (n < count) out[n] = clip8((doubled15(luma) + 64) >> 7);
        }
    }
    int sums[yuv_lines][4];  // Cb and Cr of two columns
#pragma unroll
    for (int k = 0; k < yuv_lines; k++)
        for (int c = 0; c < 4; c++) sums[k][c] = 1 << 18;
    for (int line = first[y]; line < first[last - 1] + v.taps; line++) {
        four_pixels(picture + (size_t)3 * line * v.width, count, aligned, rgb);
        int chroma[4];
        for (int c = 0; c < 4; c++) {
            const int *two = rgb + c / 2 * 6, *row = m + 3 + 3 * (c % 2);
            const int sum = row[0] * (two[0] + two[3]) + row[1] * (two[1] + two[4]) + row[2] * (two[2] + two[5]);
            chroma[c] = doubled15((sum + (256 << 15) + (1 << 9)) >> 10);
        }
#pragma unroll
        for (int k = 0; k < yuv_lines; k++) {
            const int tap = y + k < last ? line - first[y + k] : -1;
            if (tap < 0 || tap >= v.taps) continue;
            const int weight = ((const short *)v.weights)[(size_t)(y + k) * v.taps + tap];
            for (int c = 0; c < 4; c++) sums[k][c] += weight * chroma[c];
        }
    }
#pragma unroll
    for (int k = 0; k < yuv_lines; k++)
        for (int c = 0; c < 4; c++)
            if (c < count && y + k < last)
                ((u8 *)planes[2 + c % 2])[(size_t)(y + k) * (v.width / 2) + x / 2 + c / 2] = clip8(sums[k][c] >> 19);
}

// A value of an output of a model: float32, or float16 where `half` is set.
__device__ static inline float number(address values, size_t at, int half) {
    if (!half) return ((const float *)values)[at];
    const unsigned bits = ((const u16 *)values)[at], sign = (bits & 0x8000u) << 16;
    const unsigned power = bits >> 10 & 31, rest = bits & 1023;
    union { unsigned bits; float value; } made;
    if (power == 0) {  // zero, and numbers below 2^-14
        const float value = (float)rest * 5.9604644775390625e-8f;
        return sign ? -value : value;
    }
    made.bits = sign | (power == 31 ? 255u : power + 112) << 23 | rest << 13;
    return made.value;
}

// The candidates of a detector that a head may need; see engines/heads/reductions.py, Selection. Of each, in any order,
// one record: its place in the batch (int32), then its values of each output, each output's from `offset` on.
struct Candidates {
    address in[4], out, count;      // count: int32, how many records there are
    int outputs, rows, places;
    int columns[4], column_step[4], place_step[4], half[4], offset[4], record_bytes;
    int scores, first, last;        // the output of scores, and which of its columns
    int factor, factor_column;      // the output of a factor; below 0: none
    int softmax, softmax_first, softmax_last;
    float least;
};

__device__ static inline float column(const Candidates &c, int output, int row, int place, int column) {
    const size_t start = (size_t)row * c.places * c.columns[output];
    const size_t at = start + (size_t)place * c.place_step[output] + (size_t)column * c.column_step[output];
    return number(c.in[output], at, c.half[output]);
}

__device__ static inline bool is_found(const Candidates &c, int row, int place) {
    if (c.softmax) {
        float most = column(c, c.scores, row, place, c.first), largest, sum = 0;
        for (int i = c.first + 1; i < c.last; i++) most = fmaxf(most, column(c, c.scores, row, place, i));
        largest = most;
        for (int i = c.softmax_first; i < c.softmax_last; i++)
            largest = fmaxf(largest, column(c, c.scores, row, place, i));
        for (int i = c.softmax_first; i < c.softmax_last; i++)
            sum += expf(column(c, c.scores, row, place, i) - largest);
        return expf(most - largest) > c.least * sum;
    }
    const float factor = c.factor < 0 ? 1 : column(c, c.factor, row, place, c.factor_column);
    for (int i = c.first; i < c.last; i++)
        if (column(c, c.scores, row, place, i) * factor > c.least) return true;
    return false;
}

extern "C" __global__ void candidates(const Candidates c) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= c.places) return;
    for (int row = blockIdx.y; row < c.rows; row += gridDim.y) {
        if (!is_found(c, row, place)) continue;
        const address record = c.out + (size_t)atomicAdd((int *)c.count, 1) * c.record_bytes;
        *(int *)record = row * c.places + place;
        for (int output = 0; output < c.outputs; output++) {
            const size_t start = (size_t)row * c.places * c.columns[output] + (size_t)place * c.place_step[output];
            const address to = record + c.offset[output];
            for (int i = 0; i < c.columns[output]; i++) {
                const size_t at = start + (size_t)i * c.column_step[output];
                if (c.half[output]) ((u16 *)to)[i] = ((const u16 *)c.in[output])[at];
                else ((unsigned *)to)[i] = ((const unsigned *)c.in[output])[at];
            }
        }
    }
}

// The number of the channel with the highest value, the first of equal ones, and the first that is no number, as
// NumPy's argmax; of one channel, whether it exceeds the threshold.
struct Classes {
    address in, out;
    int rows, pixels, channels, channel_step, pixel_step, half;
    float threshold;
};

extern "C" __global__ void classes(const Classes c) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= c.pixels) return;
    for (int row = blockIdx.y; row < c.rows; row += gridDim.y) {
        const size_t start = (size_t)row * c.pixels * c.channels + (size_t)pixel * c.pixel_step;
        float highest = number(c.in, start, c.half);
        int chosen = 0;
        for (int i = 1; i < c.channels && highest == highest; i++) {
            const float value = number(c.in, start + (size_t)i * c.channel_step, c.half);
            if (value > highest || value != value) highest = value, chosen = i;
        }
        ((u8 *)c.out)[(size_t)row * c.pixels + pixel] = c.channels == 1 ? highest > c.threshold : chosen;
    }
}

// Bytes of floats: (value - black) / span, from 0 to 1, times 255, to the nearest, halves to even; no number is 0.
// Bytes stay as they are.
struct Bytes {
    address in, out;
    int rows, values, row_step, step;  // of a row, every `step`-th value goes out
    int columns, first[4];             // several times, side by side: from each `first` on
    int half, whole;                   // float16; bytes
    float black, span;
};

extern "C" __global__ void bytes(const Bytes b) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= b.values * b.columns) return;
    const size_t offset = (size_t)(at / b.columns) * b.step + b.first[at % b.columns];
    for (int row = blockIdx.y; row < b.rows; row += gridDim.y) {
        const size_t from = (size_t)row * b.row_step + offset;
        u8 *out = (u8 *)b.out + (size_t)row * b.values * b.columns + at;
        if (b.whole) {
            *out = ((const u8 *)b.in)[from];
            continue;
        }
        const float value = (number(b.in, from, b.half) - b.black) / b.span;
        const float share = value > 0 ? (value < 1 ? value : 1) : 0;
        *out = (u8)rintf(share * 255);
    }
}

// Pictures with changes, in their order. A change mixes `value` into a rectangle, by the shares of a mask, or wholly
// without a mask. With tables the mask holds classes: 256 values and 256 shares, of the class of a sample's first pixel.
struct Change {
    address mask, tables;
    int top, left, bottom, right;  // in samples
    int pitch, down, across;       // of the mask: bytes a line; pixels from sample to sample
    int value;
};

struct Drawn {
    address source, out;
    int height, width;
    int first, count;  // of the changes
};

struct Draw {
    address pictures, changes;
};

extern "C" __global__ void draw(const Draw d) {
    const Drawn p = ((const Drawn *)d.pictures)[blockIdx.y];
    const Change *changes = (const Change *)d.changes + p.first;
    const int all = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.height * p.width; i += all) {
        const int y = i / p.width, x = i % p.width;
        int sample = ((const u8 *)p.source)[i];
        for (int n = 0; n < p.count; n++) {
            const Change &c = changes[n];
            if (y < c.top || y >= c.bottom || x < c.left || x >= c.right) continue;
            int share = 255, value = c.value;
            if (c.mask) share = ((const u8 *)c.mask)[(size_t)(y - c.top) * c.down * c.pitch + (x - c.left) * c.across];
            if (c.tables) {
                value = ((const u8 *)c.tables)[share];
                share = ((const u8 *)c.tables)[256 + share];
            }
            sample = (sample * (255 - share) + value * share + 127) / 255;
        }
        ((u8 *)p.out)[i] = sample;
    }
}

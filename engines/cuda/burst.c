// Decodes a part of a segment in one call, without the interpreter: packets to frames, and frames to rows by kernels.
// engines/cuda/burst_library.py declares the structs, too.
#include <stdint.h>
#include <string.h>

enum { AGAIN = -11, END = -541478725 };  // AVERROR(EAGAIN) of Linux, AVERROR_EOF
enum { NONREF = 8 };                     // AVDISCARD_NONREF
enum { INTERLACED = 1 << 3, CORRUPT = 1 << 0 };  // AV_FRAME_FLAG_...
enum { KEY = 1, HIDDEN = 4, EXTRADATA = 16 };    // of a row of the table of packets
enum { DONE, MORE, FIRST, UNKNOWN, IRREGULAR, FAILED };  // what a call returns
enum { NONE, RECEIVED, ACCEPTED };                        // a frame that is kept while the interpreter looks at it

// What the conversion of a frame depends on.
struct facts {
    int64_t interlaced, format, sw_format, width, height, color_range, colorspace, lines[3];
};

// A frame as the interpreter reads it, to be compared with how PyAV reads it.
struct row {
    int64_t pts, corrupt, planes[3];
    struct facts facts;
};

// A kernel for frames of a kind: `given` is its struct, whose first field takes `each` addresses a frame.
struct launch {
    void *function, *given;
    const int64_t *sources, *offsets;
    int64_t each;
    uint32_t across, down, block[3], unused;
};

// Where the rows of one picture are: `count` of them, used again from the first on.
struct output {
    const int64_t *addresses;
    int64_t count;
};

struct times {
    const int64_t *values;  // ascending
    int64_t count;
};

struct burst {
    // of FFmpeg
    int (*send)(void *context, const void *packet);
    int (*receive)(void *context, void *frame);
    void (*unref)(void *frame);
    int (*set_int)(void *object, const char *name, int64_t value, int flags);
    int (*new_packet)(void *packet, int size);
    void (*unref_packet)(void *packet);
    // of CUDA's driver
    int (*launch)(void *function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *stream,
                  void **given, void **extra);
    int (*record)(void *event, void *stream);
    int (*wait)(void *stream, void *event, unsigned flags);
    int (*finish)(void *event);
    void *context, *packet, *stream;
    void *events[3];         // after the decoder's copies, and after the kernels of either half of `slots`
    void *const *slots;      // frames: two halves of `together`, of which one is filled while kernels read the other
    int64_t together;
    // the segment: rows of flags, pts, duration and bytes, and the packets one after the other
    const int64_t *table;
    const uint8_t *data;
    struct times due;        // of the frames that must come
    const uint8_t *wanted;   // of each of them whether it is converted
    struct times hidden, ranks, entries, owned;
    int64_t *seen;           // those of `owned` that came
    int64_t packet_count, since, skips, by_rank, checked;
    // the recipe
    const struct launch *launches;
    const struct output *outputs;
    int64_t launch_count, known;
    struct facts facts;
    // where it is
    int64_t at, offset, next, seen_count, rank, last, some, skipping, done, over;
    int64_t half, count, busy[2], pending, made, first;  // `first`: number of the row of the half's first frame
    int64_t error;
    // offsets of AVFrame's fields, of AVBufferRef.data and of AVHWFramesContext.sw_format
    int64_t pts, flags, errors, format, width, height, color_range, colorspace, planes, linesize, frames, ref_data,
        sw_format;
    // offsets of AVPacket's fields
    int64_t packet_pts, packet_data, packet_flags, packet_duration;
};

int64_t burst_bytes(void) { return sizeof(struct burst); }

#define FIELD(type, object, offset) (*(type *)((char *)(object) + (offset)))

void describe(const struct burst *b, void *frame, struct row *row) {
    row->pts = FIELD(int64_t, frame, b->pts);
    row->corrupt = FIELD(int, frame, b->errors) != 0 || (FIELD(int, frame, b->flags) & CORRUPT) != 0;
    struct facts *facts = &row->facts;
    facts->interlaced = (FIELD(int, frame, b->flags) & INTERLACED) != 0;
    facts->format = FIELD(int, frame, b->format);
    facts->width = FIELD(int, frame, b->width);
    facts->height = FIELD(int, frame, b->height);
    facts->color_range = FIELD(int, frame, b->color_range);
    facts->colorspace = FIELD(int, frame, b->colorspace);
    for (int i = 0; i < 3; i++) {
        row->planes[i] = FIELD(int64_t, frame, b->planes + 8 * i);
        facts->lines[i] = FIELD(int, frame, b->linesize + 4 * i);
    }
    void *frames = FIELD(void *, frame, b->frames);
    facts->sw_format = frames ? FIELD(int, FIELD(void *, frames, b->ref_data), b->sw_format) : -1;
}

// How many of the times are at most `pts`.
static int64_t until(struct times times, int64_t pts) {
    int64_t low = 0, high = times.count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (times.values[middle] <= pts) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int is_in(struct times times, int64_t pts) {
    const int64_t count = until(times, pts);
    return count && times.values[count - 1] == pts;
}

static void *const *half_of(const struct burst *b, int64_t half) { return b->slots + half * b->together; }

// Give the frames of a half back to the decoder, once the kernels that read them are over.
static int freed(struct burst *b, int64_t half) {
    if (!b->busy[half]) return 0;
    const int status = b->finish(b->events[1 + half]);
    for (int64_t i = 0; i < b->busy[half]; i++) b->unref(half_of(b, half)[i]);
    b->busy[half] = 0;
    return status;
}

// Queue the kernels for the frames of the current half, and go on with the other one.
static int launched(struct burst *b) {
    int status = 0;
    if (!b->count) return 0;
    status = b->record(b->events[0], 0);  // FFmpeg's work on its frames is queued on the null stream
    if (!status) status = b->wait(b->stream, b->events[0], 0);
    for (int64_t l = 0; l < b->launch_count && !status; l++) {
        const struct launch *kernel = b->launches + l;
        uint64_t *address = kernel->given;
        for (int64_t i = 0; i < b->count; i++)
            for (int64_t e = 0; e < kernel->each; e++) {
                const int64_t source = kernel->sources[e];
                if (source < 3) *address = FIELD(uint64_t, half_of(b, b->half)[i], b->planes + 8 * source);
                else {
                    const struct output *output = b->outputs + source - 3;
                    *address = output->addresses[(b->first + i) % output->count];
                }
                *address++ += kernel->offsets[e];
            }
        void *given[] = {kernel->given};
        status = b->launch(kernel->function, kernel->across * (unsigned)b->count, kernel->down, 1, kernel->block[0],
                           kernel->block[1], kernel->block[2], 0, b->stream, given, 0);
    }
    if (!status) status = b->record(b->events[1 + b->half], b->stream);
    b->busy[b->half] = b->count;
    b->first = b->made;
    b->count = 0;
    b->half = !b->half;
    const int other = freed(b, b->half);
    return status ? status : other;
}

// Wait for all kernels, and release all frames.
int64_t released(struct burst *b) {
    int status = 0;
    for (int64_t half = 0; half < 2; half++) {
        const int each = freed(b, half);
        if (each) status = each;
    }
    for (int64_t i = 0; i < b->count + (b->pending != NONE); i++) b->unref(half_of(b, b->half)[i]);
    b->count = b->pending = b->made = b->first = 0;
    return status;
}

// Give the decoder its next packet, or its end.
static int fed(struct burst *b) {
    while (b->at < b->packet_count && b->table[4 * b->at] & EXTRADATA) b->offset += b->table[4 * b->at++ + 3];
    if (b->at >= b->packet_count) return b->send(b->context, 0);
    const int64_t *row = b->table + 4 * b->at++;
    if (b->skips && b->skipping != !is_in(b->due, row[1])) {
        b->skipping = !b->skipping;
        b->set_int(b->context, "skip_frame", b->skipping ? NONREF : 0, 0);
    }
    int status = b->new_packet(b->packet, (int)row[3]);
    if (status < 0) return status;
    memcpy(FIELD(void *, b->packet, b->packet_data), b->data + b->offset, row[3]);
    FIELD(int64_t, b->packet, b->packet_pts) = row[1];
    FIELD(int64_t, b->packet, b->packet_duration) = row[2];
    FIELD(int, b->packet, b->packet_flags) = row[0] & KEY;
    b->offset += row[3];
    status = b->send(b->context, b->packet);
    b->unref_packet(b->packet);
    return status;
}

enum fate { DROPPED, KEPT, WRONG };

// Whether a frame is what must come next; `engines.media.reader` has the rules.
static enum fate judged(struct burst *b, const struct row *row) {
    int64_t pts = row->pts;
    if (b->by_rank) {
        if (b->rank == b->ranks.count) return DROPPED;
        pts = b->ranks.values[b->rank++];
    } else if (pts == INT64_MIN) return WRONG;
    else if (is_in(b->hidden, pts)) return DROPPED;
    if (b->some && pts <= b->last) return WRONG;
    if (pts < b->since) return DROPPED;
    b->last = pts;
    b->some = 1;
    if (row->corrupt) return WRONG;
    const int left = b->next < b->due.count, is_next = left && pts == b->due.values[b->next];
    if ((left && pts > b->due.values[b->next]) || (!b->skips && !is_next)) return WRONG;
    if (b->by_rank && row->pts != INT64_MIN && until(b->entries, pts) != until(b->entries, row->pts)) return WRONG;
    if (!b->done && is_in(b->owned, pts)) b->seen[b->seen_count++] = pts;
    if (!is_next) return DROPPED;
    b->next++;
    if (b->skips && b->next == b->due.count) {  // what is in the decoder still comes out, and may be damaged
        b->done = 1;
        b->at = b->packet_count;
    }
    return b->wanted[b->next - 1] ? KEPT : DROPPED;
}

static int same(const struct facts *one, const struct facts *other) { return !memcmp(one, other, sizeof *one); }

// Decode and convert until `goal` of the frames that are due came, or all packets are decoded if that is all of them.
// Returns MORE after `most` packets, FIRST at a frame that is to be compared with PyAV's view, and UNKNOWN at one whose
// `facts` must get a recipe: then call it again.
int64_t decode_part(struct burst *b, int64_t goal, int64_t most) {
    while (!b->over && (b->next < goal || goal == b->due.count)) {
        void *frame = half_of(b, b->half)[b->count];
        struct row row;
        if (b->pending == NONE) {
            const int status = b->receive(b->context, frame);
            if (status == AGAIN) {
                if (!most--) return MORE;
                const int sent = fed(b);
                if (sent < 0 && sent != END) return b->error = sent, IRREGULAR;
                continue;
            }
            if (status == END) {
                b->over = 1;
                continue;
            }
            if (status < 0) return b->error = status, IRREGULAR;
            b->pending = RECEIVED;
            if (!b->checked) return FIRST;
        }
        if (b->pending == RECEIVED) {
            describe(b, frame, &row);
            enum fate fate = judged(b, &row);
            if (fate == KEPT && b->known && !same(&b->facts, &row.facts)) fate = WRONG;
            if (fate == WRONG) return IRREGULAR;
            if (fate == DROPPED) {
                b->unref(frame);
                b->pending = NONE;
                continue;
            }
            b->pending = ACCEPTED;
            if (!b->known) {
                b->facts = row.facts;
                return UNKNOWN;
            }
        }
        b->pending = NONE;
        b->made++;
        if (++b->count == b->together && (b->error = launched(b))) return FAILED;
    }
    if (b->over && b->next < b->due.count) return IRREGULAR;
    if ((b->error = launched(b)) || (b->error = released(b))) return FAILED;
    return DONE;
}

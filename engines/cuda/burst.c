// Decodes many packets in one call, without the interpreter; engines/cuda/burst_library.py declares the struct, too.
#include <stdint.h>

enum { AGAIN = -11, END = -541478725 };  // AVERROR(EAGAIN) of Linux, AVERROR_EOF
enum { NONREF = 8 };                     // AVDISCARD_NONREF
enum { INTERLACED = 1 << 3, CORRUPT = 1 << 0 };  // AV_FRAME_FLAG_...

// A frame that came out, as the interpreter reads it.
struct row {
    int64_t kept, pts, corrupt, interlaced, format, sw_format, width, height, color_range, colorspace;
    int64_t planes[3], lines[3];
};

struct burst {
    int (*send)(void *context, const void *packet);
    int (*receive)(void *context, void *frame);
    void (*unref)(void *frame);
    int (*set_int)(void *object, const char *name, int64_t value, int flags);
    void *context;
    void *const *packets;
    const uint8_t *needed;  // of each packet: 0: the decoder may skip a frame that no other refers to; null: all
    const int64_t *due;     // ascending: times of the frames to keep; null: all
    int64_t packet_count, due_count;
    int64_t at, skipping, over, error;
    // offsets of AVFrame's fields, of AVBufferRef.data and of AVHWFramesContext.sw_format
    int64_t pts, flags, errors, format, width, height, color_range, colorspace, data, linesize, frames, ref_data, sw_format;
};

#define FIELD(type, object, offset) (*(type *)((char *)(object) + (offset)))

void describe(const struct burst *burst, void *frame, struct row *row) {
    row->pts = FIELD(int64_t, frame, burst->pts);
    row->corrupt = FIELD(int, frame, burst->errors) != 0 || (FIELD(int, frame, burst->flags) & CORRUPT) != 0;
    row->interlaced = (FIELD(int, frame, burst->flags) & INTERLACED) != 0;
    row->format = FIELD(int, frame, burst->format);
    row->width = FIELD(int, frame, burst->width);
    row->height = FIELD(int, frame, burst->height);
    row->color_range = FIELD(int, frame, burst->color_range);
    row->colorspace = FIELD(int, frame, burst->colorspace);
    for (int i = 0; i < 3; i++) {
        row->planes[i] = FIELD(int64_t, frame, burst->data + 8 * i);
        row->lines[i] = FIELD(int, frame, burst->linesize + 4 * i);
    }
    void *frames = FIELD(void *, frame, burst->frames);
    row->sw_format = frames ? FIELD(int, FIELD(void *, frames, burst->ref_data), burst->sw_format) : -1;
}

static int is_due(const struct burst *burst, int64_t pts) {
    int64_t low = 0, high = burst->due_count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (burst->due[middle] < pts) low = middle + 1;
        else high = middle;
    }
    return low < burst->due_count && burst->due[low] == pts;
}

// Decode until `most` frames came out, or all packets are decoded: how many came, or an error of FFmpeg. Frames that
// are kept are in `frames`, the others were released.
int64_t decode_burst(struct burst *burst, void *const *frames, struct row *rows, int64_t most) {
    int64_t count = 0;
    int status = (int)burst->error;
    while (status >= 0 && count < most && !burst->over) {
        void *frame = frames[count];
        status = burst->receive(burst->context, frame);
        if (status >= 0) {
            struct row *row = rows + count++;
            describe(burst, frame, row);
            row->kept = !burst->due || is_due(burst, row->pts);
            if (!row->kept) burst->unref(frame);
            if (burst->due && burst->due_count && row->pts == burst->due[burst->due_count - 1])
                burst->at = burst->packet_count;  // what is in the decoder still comes out
        } else if (status == END) {
            burst->over = 1;
        } else if (status == AGAIN) {
            const int last = burst->at == burst->packet_count;
            if (!last && burst->needed && burst->skipping != !burst->needed[burst->at]) {
                burst->skipping = !burst->needed[burst->at];
                burst->set_int(burst->context, "skip_frame", burst->skipping ? NONREF : 0, 0);
            }
            status = burst->send(burst->context, last ? 0 : burst->packets[burst->at++]);
        }
    }
    if (status < 0 && status != END) burst->error = status;
    return count || burst->over ? count : burst->error;
}

void unref_frames(const struct burst *burst, void *const *frames, int64_t count) {
    for (int64_t i = 0; i < count; i++) burst->unref(frames[i]);
}

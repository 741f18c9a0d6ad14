// Builds all frames of an upload in memory beforehand, and reads files of records.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../limit/wire.h"

// What to upload: `bytes` bytes of the payload's file, and the file to keep the frames in, or NULL.
struct content {
    size_t bytes, chunk;
    enum frame_type kind;
    const char *payload, *frames;
};

// All frames of one file, the same for every device.
struct image {
    const uint8_t *frames;
    size_t bytes, data_bytes, chunk_bytes, frame_bytes, count;
};

struct record {
    const uint8_t *data;
    size_t bytes;
};

static inline struct record mapped(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat found;
    if (fd < 0 || fstat(fd, &found) || !found.st_size) die("%s cannot be read, or is empty", path);
    const uint8_t *data = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED) die("%s cannot be mapped", path);
    close(fd);
    return (struct record){data, (size_t)found.st_size};
}

static inline struct record next_record(struct record *file, const char *path) {
    if (file->bytes < 4 || file->bytes - 4 < load32(file->data)) die("%s has too few records", path);
    struct record record = {file->data + 4, load32(file->data)};
    file->data += 4 + record.bytes;
    file->bytes -= 4 + record.bytes;
    return record;
}

static inline void copy_payload(uint8_t *to, struct record payload, size_t at, size_t bytes) {
    for (size_t part; bytes; to += part, at += part, bytes -= part) {
        size_t from = at % payload.bytes;
        part = bytes < payload.bytes - from ? bytes : payload.bytes - from;
        memcpy(to, payload.data + from, part);
    }
}

static inline void make_frame(uint8_t *to, enum frame_type kind, struct record payload, size_t at, size_t bytes) {
    size_t header = header_bytes(kind);
    copy_payload(to + header, payload, at, bytes);
    store_prefix(to, kind, (uint32_t)(header - PREFIX + bytes));
    store64(to + PREFIX, at);
    store64(to + PREFIX + 8, at + bytes - 1);
    if (kind == CHUNK)
        to[PREFIX + 16] = sum8(to + header, bytes);
    else
        store32(to + CRC_COVERED, crc32c(crc32c(0, to, CRC_COVERED), to + header, bytes));
}

static inline void fill(uint8_t *frames, const struct image *image, const struct content *content) {
    struct record payload = mapped(content->payload);
    crc32c_prepare();
    for (size_t number = 0; number < image->count; number++) {
        size_t at = number * content->chunk, left = content->bytes - at;
        size_t bytes = left < content->chunk ? left : content->chunk;
        make_frame(frames + number * image->frame_bytes, content->kind, payload, at, bytes);
    }
    munmap((void *)payload.data, payload.bytes);
}

// Fills new memory with the frames: that of the file `fd`, or anonymous memory if `fd` is negative.
static inline uint8_t *new_frames(const struct image *image, const struct content *content, int fd) {
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (fd >= 0 && ftruncate(fd, (off_t)image->bytes)) die("%s: %s", content->frames, strerror(errno));
    uint8_t *frames = mmap(NULL, image->bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (frames == MAP_FAILED) die("no memory for %zu bytes of frames", image->bytes);
    if (fd < 0) madvise(frames, image->bytes, MADV_HUGEPAGE);  // fewer TLB misses while the kernel copies it
    fill(frames, image, content);
    return frames;
}

static inline struct image make_image(const struct content *content) {
    size_t count = (content->bytes + content->chunk - 1) / content->chunk, header = header_bytes(content->kind);
    struct image image = {.bytes = content->bytes + count * header,
                          .data_bytes = content->bytes,
                          .chunk_bytes = content->chunk,
                          .frame_bytes = content->chunk + header,
                          .count = count};
    if (!content->frames) {
        image.frames = new_frames(&image, content, -1);
        return image;
    }
    if (access(content->frames, R_OK)) {
        char unfinished[4096];
        snprintf(unfinished, sizeof unfinished, "%s.new", content->frames);
        int fd = open(unfinished, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0) die("%s: %s", unfinished, strerror(errno));
        munmap(new_frames(&image, content, fd), image.bytes);
        if (fsync(fd) || rename(unfinished, content->frames)) die("%s: %s", content->frames, strerror(errno));
        close(fd);
    }
    struct record kept = mapped(content->frames);
    if (kept.bytes != image.bytes) die("%s holds other frames", content->frames);
    image.frames = kept.data;
    return image;
}

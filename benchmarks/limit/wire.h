// The frames of PROTOCOL.md that the benchmarks use, and helpers that their programs share.
#pragma once

#include <endian.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "crc32c.h"

enum frame_type {
    WELCOME = 0x02,
    REFUSED = 0x05,
    OPEN = 0x10,
    OPENED = 0x11,
    FINISH = 0x12,
    VERIFYING = 0x13,
    FINISHED = 0x14,
    CHUNK = 0x20,
    CHUNK_COMPACT = 0x21,
    CHUNK_CRC32C = 0x22,
    ACK = 0x28,
    NACK = 0x29,
    PING = 0x30,
    PONG = 0x31,
    GOAWAY = 0x32,
    ERROR = 0x33,
};

enum { TLV_NAME = 0x10, TLV_SHA256 = 0x12, TLV_CRC32C = 0x13 };

// Sizes in bytes: the prefix of every frame, the headers of chunks including the prefix, the whole ACK and FINISHED.
enum { PREFIX = 8, CHUNK_HEADER = PREFIX + 17, CHUNK_CRC32C_HEADER = PREFIX + 20, ACK_FRAME = PREFIX + 8 };
enum { FINISHED_FRAME = PREFIX + 20, CRC_COVERED = CHUNK_CRC32C_HEADER - 4 };

// Every connection has one upload, on this stream.
enum { STREAM = 1 };

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static inline void store32(uint8_t *at, uint32_t value) {
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static inline void store64(uint8_t *at, uint64_t value) {
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
}

static inline void store_prefix(uint8_t *at, enum frame_type type, uint32_t length) {
    at[0] = (uint8_t)type;
    at[1] = 0;
    at[2] = STREAM >> 8;
    at[3] = STREAM & 255;
    store32(at + 4, length);
}

static inline uint8_t sum8(const uint8_t *data, size_t bytes) {
    uint8_t sum = 0;
    for (size_t at = 0; at < bytes; at++) sum = (uint8_t)(sum + data[at]);  // the compiler vectorises this loop
    return sum;
}

static inline enum frame_type chunk_type(const char *kind) {
    if (!strcmp(kind, "sum8")) return CHUNK;
    if (!strcmp(kind, "crc32c")) return CHUNK_CRC32C;
    die("--kind %s is neither sum8 nor crc32c", kind);
}

static inline size_t header_bytes(enum frame_type chunk) {
    return chunk == CHUNK ? CHUNK_HEADER : CHUNK_CRC32C_HEADER;
}

static inline double monotonic_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

// CRC32C (RFC 3720) at the full speed of the instruction. Its latency is three cycles and its throughput one per cycle,
// so three streams run in parallel.
#pragma once

#include <nmmintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Stream lengths in bytes: long for large chunks, short so that a chunk of 1 KiB gets three streams too.
enum { CRC32C_LONG = 8192, CRC32C_SHORT = 256 };

// The effect on a CRC of appending `bytes` zero bytes: a linear map, with one table for each byte of the CRC.
struct crc32c_shift {
    size_t bytes;
    uint32_t table[4][256];
};

static struct crc32c_shift crc32c_long, crc32c_short;

static inline uint32_t crc32c_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1 ? b >> 1 ^ 0x82f63b78 : b >> 1;
    }
    return product;
}

static inline void crc32c_shift_by(struct crc32c_shift *shift, size_t bytes) {
    uint32_t power = 1u << 31, square = 1u << 23;  // x^0, and x^8 for one byte
    for (size_t left = bytes; left; left >>= 1, square = crc32c_multiply(square, square))
        if (left & 1) power = crc32c_multiply(square, power);
    for (int place = 0; place < 4; place++)
        for (uint32_t value = 0; value < 256; value++)
            shift->table[place][value] = crc32c_multiply(power, value << 8 * place);
    shift->bytes = bytes;
}

// Call this before any other function.
static inline void crc32c_prepare(void) {
    crc32c_shift_by(&crc32c_long, CRC32C_LONG);
    crc32c_shift_by(&crc32c_short, CRC32C_SHORT);
}

static inline uint32_t crc32c_shifted(const struct crc32c_shift *shift, uint32_t crc) {
    return shift->table[0][crc & 255] ^ shift->table[1][crc >> 8 & 255] ^ shift->table[2][crc >> 16 & 255] ^
           shift->table[3][crc >> 24];
}

static inline uint64_t crc32c_word(uint64_t state, const uint8_t *data) {
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return _mm_crc32_u64(state, word);
}

static inline uint64_t crc32c_three(uint64_t state, const uint8_t *data, size_t bytes, const struct crc32c_shift *shift) {
    uint64_t second = 0, third = 0;
    for (size_t at = 0; at < bytes; at += 8) {
        state = crc32c_word(state, data + at);
        second = crc32c_word(second, data + bytes + at);
        third = crc32c_word(third, data + 2 * bytes + at);
    }
    state = crc32c_shifted(shift, (uint32_t)state) ^ second;
    return crc32c_shifted(shift, (uint32_t)state) ^ third;
}

// Extends `crc` by `data`. The CRC of nothing is 0.
static inline uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t bytes) {
    uint64_t state = ~crc;
    for (; bytes >= 3 * CRC32C_LONG; bytes -= 3 * CRC32C_LONG, data += 3 * CRC32C_LONG)
        state = crc32c_three(state, data, CRC32C_LONG, &crc32c_long);
    for (; bytes >= 3 * CRC32C_SHORT; bytes -= 3 * CRC32C_SHORT, data += 3 * CRC32C_SHORT)
        state = crc32c_three(state, data, CRC32C_SHORT, &crc32c_short);
    for (; bytes >= 8; bytes -= 8, data += 8) state = crc32c_word(state, data);
    for (; bytes; bytes--, data++) state = _mm_crc32_u8((uint32_t)state, *data);
    return ~(uint32_t)state;
}

// The CRC of A followed by B, from the CRCs of both. `shift` must be for the length of B.
static inline uint32_t crc32c_joined(uint32_t a, uint32_t b, const struct crc32c_shift *shift) {
    return crc32c_shifted(shift, a) ^ b;
}

// One device of the fleet: it connects, sends its prepared frames, and reads the answers.
#pragma once

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 1024,  // the longest answer, an ERROR with its text, is 550 bytes
    PREFIX_BYTES = 8,
};

enum frame { WELCOME = 0x02, REFUSED = 0x05, OPENED = 0x11, CHUNK = 0x20, ACK = 0x28, PING = 0x30, PONG = 0x31 };
enum packet { CONNACK = 0x20, SUBACK = 0x90 };

struct device {
    int socket;
    SSL *tls;
    bool greeted, open;
    size_t used;
    uint64_t acked, sent;  // bytes of the upload
    double *sent_at, *latency;  // of the next chunk to be acknowledged: when it was sent; room for its latency
    uint8_t input[INPUT_BYTES];
};

static struct {
    struct sockaddr_in server;
    SSL_CTX *tls;
    bool mqtt;
    int devices, outstanding, epoll;
    int open;
    uint64_t chunk_bytes, chunks, acks;
    struct device *device;
} fleet;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    fprintf(stderr, " (%s)\n", strerror(errno));
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static uint64_t u64(const uint8_t *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return be64toh(value);
}

static uint32_t u32(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return be32toh(value);
}

static void put_u64(uint8_t *to, uint64_t value) {
    value = htobe64(value);
    memcpy(to, &value, sizeof value);
}

// Frames here are far smaller than a socket's buffer and each awaits its answer, so a partial write is an error.
static void transmit(struct device *device, const uint8_t *bytes, size_t count) {
    ssize_t sent = device->tls ? SSL_write(device->tls, bytes, (int)count)
                               : send(device->socket, bytes, count, MSG_NOSIGNAL);
    if (sent != (ssize_t)count) die("device %ld: sent %zd of %zu bytes", device - fleet.device, sent, count);
}

static void acknowledged(struct device *device, uint64_t until) {
    for (double now = now_s(); device->acked < until; device->acked += fleet.chunk_bytes) {
        *device->latency++ = now - *device->sent_at++;
        fleet.acks++;
    }
}

static void opened(struct device *device) {
    device->open = true;
    fleet.open++;
}

// Handles one frame of uplinkd. Returns its size, or 0 while it is incomplete.
static size_t take_frame(struct device *device, uint8_t *frame, size_t count) {
    if (count < PREFIX_BYTES || count < PREFIX_BYTES + u32(frame + 4)) return 0;
    const uint8_t *body = frame + PREFIX_BYTES;
    switch (frame[0]) {
    case WELCOME:
        break;
    case OPENED:
        device->acked = device->sent = u64(body + 10);
        opened(device);
        break;
    case ACK:
        acknowledged(device, u64(body));
        break;
    case PING:
        frame[0] = PONG;
        transmit(device, frame, PREFIX_BYTES + u32(frame + 4));
        break;
    default:
        die("device %ld: the server answered frame 0x%02x, code 0x%02x%02x", device - fleet.device, frame[0], body[0], body[1]);
    }
    return PREFIX_BYTES + u32(frame + 4);
}

// The same for a packet of MQTT 3.1.1, all of which are shorter than 128 bytes here.
static size_t take_packet(struct device *device, uint8_t *packet, size_t count) {
    if (count < 2 || count < 2u + packet[1]) return 0;
    bool granted = packet[0] == CONNACK ? packet[3] == 0 : packet[0] == SUBACK && packet[4] <= 2;
    if (!granted) die("device %ld: the broker answered packet 0x%02x", device - fleet.device, packet[0]);
    if (packet[0] == SUBACK) opened(device);
    return 2u + packet[1];
}

static void receive(struct device *device) {
    do {
        size_t room = INPUT_BYTES - device->used;
        uint8_t *end = device->input + device->used;
        ssize_t got = device->tls ? SSL_read(device->tls, end, (int)room) : recv(device->socket, end, room, 0);
        if (got <= 0) {
            bool later = device->tls ? SSL_get_error(device->tls, (int)got) == SSL_ERROR_WANT_READ : got < 0 && errno == EAGAIN;
            if (later) return;
            die("device %ld: the server closed the connection", device - fleet.device);
        }
        device->used += (size_t)got;
        size_t taken = 0, size;
        while ((size = (fleet.mqtt ? take_packet : take_frame)(device, device->input + taken, device->used - taken)))
            taken += size;
        device->used -= taken;
        memmove(device->input, device->input + taken, device->used);
    } while (device->tls && SSL_pending(device->tls));
}

// Sends the device's preamble once the TLS handshake is complete.
static void greet(struct device *device, const uint8_t *preamble) {
    if (device->tls) {
        int done = SSL_do_handshake(device->tls);
        if (done != 1) {
            if (SSL_get_error(device->tls, done) == SSL_ERROR_WANT_READ) return;
            die("device %ld: TLS handshake failed", device - fleet.device);
        }
    }
    transmit(device, preamble + 4, u32(preamble));
    device->greeted = true;
}

static void begin(struct device *device, const uint8_t *preamble) {
    *device = (struct device){.socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    int on = 1;
    setsockopt(device->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // Blocking. On loopback and within the backlog, this returns at once with the connection established.
    if (connect(device->socket, (struct sockaddr *)&fleet.server, sizeof fleet.server)) die("cannot connect");
    fcntl(device->socket, F_SETFL, O_NONBLOCK);
    if (fleet.tls) {
        device->tls = SSL_new(fleet.tls);
        SSL_set_fd(device->tls, device->socket);
        SSL_set_connect_state(device->tls);
    }
    struct epoll_event event = {EPOLLIN, {.ptr = device}};
    if (epoll_ctl(fleet.epoll, EPOLL_CTL_ADD, device->socket, &event)) die("cannot watch a socket");
    greet(device, preamble);
}

// A connection to the daemon that may fail at any time without ending the program. Nothing here blocks.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../limit/wire.h"

enum { INPUT_BYTES = 4096 };  // `frame_bytes_max` in HELLO, so every answer fits

struct connection {
    int fd;  // -1: none
    SSL *tls;
    size_t used;
    uint8_t input[INPUT_BYTES];
};

static inline void connection_close(struct connection *connection) {
    if (connection->tls) SSL_free(connection->tls);
    if (connection->fd >= 0) close(connection->fd);
    connection->tls = NULL;
    connection->fd = -1;
}

// Begins to connect to loopback `port` from the address `from`. Events carry `owner`. Returns 0, or -1 when it failed.
static inline int connection_begin(struct connection *connection, int port, const char *from, SSL_CTX *tls, int poll,
                            void *owner) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in own = {.sin_family = AF_INET};
    struct epoll_event wanted = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = owner}};
    int on = 1;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    own.sin_addr.s_addr = inet_addr(from);
    connection->used = 0;
    connection->tls = NULL;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) return -1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // Otherwise a port is taken for the address alone, and there are fewer of them.
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(connection->fd, (struct sockaddr *)&own, sizeof own)) die("cannot use the address %s", from);
    if ((connect(connection->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) ||
        epoll_ctl(poll, EPOLL_CTL_ADD, connection->fd, &wanted)) {
        connection_close(connection);
        return -1;
    }
    if (tls) {
        connection->tls = SSL_new(tls);
        SSL_set_fd(connection->tls, connection->fd);
        SSL_set_connect_state(connection->tls);
    }
    return 0;
}

// The bytes moved, 0 if it has to wait, -1 once the connection is over.
static inline ssize_t connection_moved(struct connection *connection, ssize_t count) {
    if (count > 0) return count;
    if (connection->tls) {
        int reason = SSL_get_error(connection->tls, (int)count);
        ERR_clear_error();
        return reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    return count < 0 && (errno == EAGAIN || errno == EINTR || errno == EINPROGRESS || errno == ENOTCONN) ? 0 : -1;
}

static inline ssize_t connection_write(struct connection *connection, const void *from, size_t bytes) {
    return connection_moved(connection, connection->tls ? SSL_write(connection->tls, from, (int)bytes)
                                                        : send(connection->fd, from, bytes, MSG_NOSIGNAL));
}

// Hands every whole frame that has arrived to `take`, until that returns false. Returns false once the connection is
// over.
static inline bool connection_read(struct connection *connection, bool (*take)(void *owner, uint8_t *frame), void *owner) {
    for (;;) {
        uint8_t *end = connection->input + connection->used;
        size_t room = INPUT_BYTES - connection->used, at = 0;
        ssize_t count = connection_moved(connection, connection->tls ? SSL_read(connection->tls, end, (int)room)
                                                                     : recv(connection->fd, end, room, 0));
        if (count <= 0) return count == 0;
        connection->used += (size_t)count;
        while (connection->used - at >= PREFIX) {
            size_t whole = PREFIX + load32(connection->input + at + 4);
            if (whole > INPUT_BYTES) die("frame 0x%02x of %zu bytes", connection->input[at], whole);
            if (connection->used - at < whole) break;
            if (!take(owner, connection->input + at)) return false;
            at += whole;
        }
        connection->used -= at;
        memmove(connection->input, connection->input + at, connection->used);
    }
}

// The milliseconds that REFUSED, ERROR or GOAWAY asks the device to wait; 0 when it names none.
static inline uint32_t asked_wait_ms(const uint8_t *frame) {
    return load32(frame + PREFIX + (frame[0] == REFUSED ? 5 : frame[0] == ERROR ? 3 : 2));
}

static inline uint16_t load16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline SSL_CTX *tls_client(void) {
    // Without verification: the daemon's certificate was made for this run.
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    return context;
}

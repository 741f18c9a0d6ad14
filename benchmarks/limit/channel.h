// A socket, with TLS on top if `ssl` is set. Reads and writes do not block unless they say so.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

struct channel {
    int fd;
    SSL *ssl;
};

// How much OpenSSL reads from the socket at once. Otherwise every record costs two system calls.
enum { TLS_READ_AHEAD = 256 * 1024 };

static inline void channel_prepare(struct channel *channel) {
    int on = 1;
    setsockopt(channel->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void channel_unblock(struct channel *channel) {
    fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK);
}

static inline void channel_secure(struct channel *channel, SSL_CTX *context, int is_server) {
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, TLS_READ_AHEAD);
    channel->ssl = SSL_new(context);
    SSL_set_fd(channel->ssl, channel->fd);
    if ((is_server ? SSL_accept(channel->ssl) : SSL_connect(channel->ssl)) != 1)
        die("TLS handshake failed: %s", ERR_error_string(ERR_get_error(), NULL));
}

// Returns the bytes moved, 0 if the call would block, or -1 at the end of input. Exits when the connection fails.
static inline ssize_t channel_result(struct channel *channel, ssize_t count) {
    if (count > 0) return count;
    if (channel->ssl) {
        int reason = SSL_get_error(channel->ssl, (int)count);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
        if (reason == SSL_ERROR_ZERO_RETURN) return -1;
        die("TLS failed: %s", ERR_error_string(ERR_get_error(), NULL));
    }
    if (count == 0) return -1;
    if (errno == EAGAIN || errno == EINTR) return 0;
    die("connection failed: %s", strerror(errno));
}

static inline ssize_t channel_read(struct channel *channel, void *to, size_t bytes) {
    return channel_result(channel, channel->ssl ? SSL_read(channel->ssl, to, (int)bytes)
                                                : recv(channel->fd, to, bytes, 0));
}

static inline ssize_t channel_write(struct channel *channel, const void *from, size_t bytes) {
    return channel_result(channel, channel->ssl ? SSL_write(channel->ssl, from, (int)bytes)
                                                : send(channel->fd, from, bytes, MSG_NOSIGNAL));
}

// Blocks until all bytes are written, or exits.
static inline void channel_write_all(struct channel *channel, const uint8_t *from, size_t bytes) {
    for (ssize_t count; bytes; from += count, bytes -= (size_t)count)
        if ((count = channel_write(channel, from, bytes)) < 0) die("connection ended");
}

static inline void channel_read_all(struct channel *channel, uint8_t *to, size_t bytes) {
    for (ssize_t count; bytes; to += count, bytes -= (size_t)count)
        if ((count = channel_read(channel, to, bytes)) < 0) die("connection ended");
}

// Sends close_notify first: without it, a TLS peer takes the end for an error.
static inline void channel_close(struct channel *channel) {
    if (channel->ssl) SSL_shutdown(channel->ssl);
    close(channel->fd);
}

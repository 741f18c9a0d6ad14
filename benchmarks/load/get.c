// Downloads over HTTP/1.1 with keep-alive, as the client of all contestants in the benchmark `download`.
//
//   get PORT PATH TOKEN CONNECTIONS REQUESTS RANGE_BYTES SIZE_BYTES SEED
//
// Sends REQUESTS in all over CONNECTIONS, each for RANGE_BYTES at a random offset in a file of SIZE_BYTES; with
// RANGE_BYTES 0, for the whole file. It checks the status, length and Content-Range of every response. It receives the
// body with MSG_TRUNC, which discards it without a copy, so that the client is not the bottleneck.
// Prints {"seconds", "requests", "bytes", "cpu_s"}. The clock starts when all connections are established.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    HEAD_MAX = 8192,
    BODY_STEP = 4 << 20,  // bytes that one call may discard: as much as a socket's buffer holds
};

typedef struct {
    int fd;
    bool in_body;
    uint64_t left, start, end;  // bytes of the body to come; the requested range, its end exclusive
    char head[HEAD_MAX + 1];
} Connection;

static const char *path, *token;
static uint64_t range_bytes, size_bytes, random_state, asked, answered, received;
static uint64_t requests;

static void die(const char *what, const char *detail) {
    fprintf(stderr, "get: %s: %s\n", what, detail);
    exit(1);
}

static uint64_t random_u64(void) {  // xorshift64: the same offsets for every contestant
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect", strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void ask(Connection *c) {
    char text[2 * HEAD_MAX], range[96] = "";
    c->start = 0;
    c->end = size_bytes;
    if (range_bytes) {
        c->start = random_u64() % (size_bytes - range_bytes + 1);
        c->end = c->start + range_bytes;
        snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-%" PRIu64 "\r\n", c->start, c->end - 1);
    }
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n%s\r\n",
                          path, token, range);
    if (length >= (int)sizeof text || send(c->fd, text, (size_t)length, 0) != length) die("send", strerror(errno));
    asked++;
}

static const char *field(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " ");
        }
    }
    return "";
}

static void check_head(Connection *c) {
    char expected[96];
    if (strncmp(c->head, range_bytes ? "HTTP/1.1 206 " : "HTTP/1.1 200 ", 13)) die("answer", c->head);
    if (strtoull(field(c->head, "Content-Length"), NULL, 10) != c->end - c->start) die("Content-Length", c->head);
    int length = snprintf(expected, sizeof expected, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", c->start,
                          c->end - 1, size_bytes);
    if (range_bytes && strncmp(field(c->head, "Content-Range"), expected, (size_t)length)) die("Content-Range", c->head);
}

// Returns whether the response header is complete, and consumes it.
static bool receive_head(Connection *c) {
    // Peek, then consume only the header. The body stays in the socket, where receive_body discards it.
    ssize_t n = recv(c->fd, c->head, HEAD_MAX, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) die("recv", n ? strerror(errno) : "closed by the server");
    char *end = memmem(c->head, (size_t)n, "\r\n\r\n", 4);
    if (!end) {
        if (n == HEAD_MAX) die("answer", "its header is too long");
        return false;
    }
    size_t bytes = (size_t)(end + 4 - c->head);
    end[4 - 1] = 0;
    if (recv(c->fd, NULL, bytes, MSG_TRUNC) != (ssize_t)bytes) die("recv", strerror(errno));
    check_head(c);
    c->in_body = true;
    c->left = c->end - c->start;
    return true;
}

// A server with Nagle's algorithm on, such as nginx with tcp_nopush, holds back the last bytes of a body until TCP has
// acknowledged those before, and clients delay that by 40 ms. The server would be limited to some 30 ranges per second.
static void acknowledge(Connection *c) {
    int on = 1;
    if (range_bytes) setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void receive_body(Connection *c) {
    while (c->left) {
        size_t step = c->left < BODY_STEP ? (size_t)c->left : BODY_STEP;
        ssize_t n = recv(c->fd, NULL, step, MSG_TRUNC | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            acknowledge(c);
            return;
        }
        if (n <= 0) die("recv", n ? strerror(errno) : "closed in the middle of a body");
        c->left -= (uint64_t)n;
        received += (uint64_t)n;
    }
    answered++;
    c->in_body = false;
    if (asked < requests) ask(c);
}

int main(int argc, char **argv) {
    static Connection connections[CONNECTIONS_MAX];
    if (argc != 9) die("usage", "get PORT PATH TOKEN CONNECTIONS REQUESTS RANGE_BYTES SIZE_BYTES SEED");
    int count = atoi(argv[4]), queue = epoll_create1(0);
    path = argv[2], token = argv[3];
    requests = strtoull(argv[5], NULL, 10), range_bytes = strtoull(argv[6], NULL, 10);
    size_bytes = strtoull(argv[7], NULL, 10), random_state = strtoull(argv[8], NULL, 10) | 1;
    if (count < 1 || count > CONNECTIONS_MAX || requests < (uint64_t)count || range_bytes > size_bytes || queue < 0)
        die("arguments", "1 to 1024 connections, a request for each, and ranges no larger than the file");
    for (int i = 0; i < count; i++) {
        connections[i].fd = connected(atoi(argv[1]));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        if (epoll_ctl(queue, EPOLL_CTL_ADD, connections[i].fd, &event) < 0) die("epoll", strerror(errno));
    }
    double began = now_s();
    for (int i = 0; i < count; i++) ask(&connections[i]);
    while (answered < requests) {
        struct epoll_event events[64];
        int ready = epoll_wait(queue, events, 64, 30000);
        if (ready == 0) die("epoll", "no response for 30 s");
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (c->in_body || receive_head(c)) receive_body(c);
        }
    }
    double seconds = now_s() - began;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\": %.6f, \"requests\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"cpu_s\": %.6f}\n", seconds,
           answered, received, cpu_s);
    return 0;
}

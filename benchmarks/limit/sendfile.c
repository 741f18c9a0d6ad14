// The least work to serve a file: one thread, epoll, and for each request a response header and one sendfile.
//
//   sendfile PORT FILE        serves FILE under every path, with or without `Range: bytes=FIRST-LAST`
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 2048,  // connections are indexed by descriptor
    REQUEST_MAX = 16384,
};

typedef struct {
    off_t offset, end;
    size_t bytes;
    char request[REQUEST_MAX + 1];
} Connection;

static Connection *connections[CONNECTIONS_MAX];
static int file, queue;
static off_t size;

static void die(const char *what) {
    fprintf(stderr, "sendfile: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void hang_up(int fd) {
    free(connections[fd]);
    connections[fd] = NULL;
    close(fd);
}

static void watch(int fd, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(queue, operation, fd, &event) < 0) die("epoll");
}

// Returns whether the whole body has been sent. The rest follows when the socket is writable again.
static bool send_body(int fd, Connection *c) {
    while (c->offset < c->end) {
        ssize_t sent = sendfile(fd, file, &c->offset, (size_t)(c->end - c->offset));
        if (sent < 0 && errno == EAGAIN) return false;
        if (sent <= 0) {
            hang_up(fd);
            return false;
        }
    }
    return true;
}

static void answer(int fd, Connection *c) {
    char head[256];
    int64_t first = 0, last = size - 1;
    const char *range = strstr(c->request, "\r\nRange: bytes=");
    bool partial = range && sscanf(range + 15, "%" SCNd64 "-%" SCNd64, &first, &last) == 2;
    if (first < 0 || last >= size || first > last) {
        hang_up(fd);
        return;
    }
    int length = partial ? snprintf(head, sizeof head,
                                    "HTTP/1.1 206 Partial Content\r\nContent-Length: %" PRId64
                                    "\r\nContent-Range: bytes %" PRId64 "-%" PRId64 "/%" PRId64 "\r\n\r\n",
                                    last - first + 1, first, last, (int64_t)size)
                         : snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %" PRId64 "\r\n\r\n",
                                    (int64_t)size);
    c->offset = first, c->end = last + 1, c->bytes = 0;
    if (send(fd, head, (size_t)length, MSG_MORE) != length) {
        hang_up(fd);
        return;
    }
    if (!send_body(fd, c) && connections[fd]) watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
}

static void serve(int fd, uint32_t events) {
    Connection *c = connections[fd];
    if (events & EPOLLOUT) {
        if (send_body(fd, c)) watch(fd, EPOLLIN, EPOLL_CTL_MOD);
        return;
    }
    ssize_t n = recv(fd, c->request + c->bytes, REQUEST_MAX - c->bytes, 0);
    if (n <= 0) {
        hang_up(fd);
        return;
    }
    c->bytes += (size_t)n;
    c->request[c->bytes] = 0;
    // One request at a time: the benchmark's client does not pipeline.
    if (c->bytes >= 4 && !memcmp(c->request + c->bytes - 4, "\r\n\r\n", 4)) answer(fd, c);
}

static int listening(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1024) < 0) die("listen");
    return fd;
}

static void accept_connection(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), on = 1;
    if (fd < 0) return;
    if (fd >= CONNECTIONS_MAX || !(connections[fd] = calloc(1, sizeof(Connection)))) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

int main(int argc, char **argv) {
    struct stat found;
    signal(SIGPIPE, SIG_IGN);
    if (argc != 3) {
        fprintf(stderr, "usage: sendfile PORT FILE\n");
        return 1;
    }
    file = open(argv[2], O_RDONLY);
    if (file < 0 || fstat(file, &found) < 0) die(argv[2]);
    size = found.st_size;
    queue = epoll_create1(0);
    int listener = listening(atoi(argv[1]));
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(queue, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) accept_connection(listener);
            else if (connections[events[i].data.fd]) serve(events[i].data.fd, events[i].events);
        }
    }
}

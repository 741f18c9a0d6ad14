/* The least work to resume: a TCP stream that continues after the last byte received. No frames, checksums or disk.
 *
 * stream receive PORT BYTES            sends its byte count on each connection, until it has BYTES and has said so
 * stream send HOST PORT BYTES          sends the missing bytes; reconnects at once when the connection breaks
 *
 * The sender prints {"seconds", "sent_bytes", "resent_bytes"}: the time from its first connect until the receiver has
 * confirmed all bytes, and a list of the bytes that each cut made it send again. It keeps little in the socket, so that
 * few bytes are sent again.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 64 * 1024,
    UNSENT = 8 * 1024, /* bytes that may wait in the socket unsent: 65 ms at 1 Mbit/s */
    PIECE = 4 * 1024,  /* bytes per write, because a writable socket would take far more */
    RETRY_US = 50000,  /* pause after a failed connect, to avoid a busy loop */
    CUTS_MAX = 1024,
};

static char block[BLOCK];

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, host, &at.sin_addr);
    return at;
}

static int receive(const char *port, uint64_t size) {
    struct sockaddr_in at = address("0.0.0.0", port);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) return perror("listen"), 1;
    for (uint64_t have = 0;;) {
        int link = accept(listener, NULL, NULL);
        if (link < 0) return perror("accept"), 1;
        uint64_t next = htobe64(have);
        ssize_t n = send(link, &next, sizeof next, MSG_NOSIGNAL);
        while (n > 0 && have < size && (n = recv(link, block, sizeof block, 0)) > 0) have += (uint64_t)n;
        next = htobe64(have);
        /* Confirm, and wait for the sender to close, because the confirmation may be lost with the connection. */
        if (have == size && send(link, &next, sizeof next, MSG_NOSIGNAL) > 0 && recv(link, block, 1, 0) == 0) return 0;
        close(link);
    }
}

static int connected(const struct sockaddr_in *at) {
    for (int unsent = UNSENT;;) {
        int link = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(link, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
        if (!connect(link, (const struct sockaddr *)at, sizeof *at)) return link;
        close(link);
        usleep(RETRY_US);
    }
}

/* Returns the next byte to send: `size`, or less if the connection broke. */
static uint64_t send_from(int link, uint64_t next, uint64_t size) {
    while (next < size) {
        struct pollfd ready = {link, POLLOUT, 0};
        if (poll(&ready, 1, -1) < 0) break;
        ssize_t n = send(link, block, size - next < PIECE ? size - next : PIECE, MSG_NOSIGNAL);
        if (n < 0) break;
        next += (uint64_t)n;
    }
    return next;
}

static void report(double seconds, uint64_t sent, const uint64_t *resent, int cuts) {
    printf("{\"seconds\": %.6f, \"sent_bytes\": %llu, \"resent_bytes\": [", seconds, (unsigned long long)sent);
    for (int i = 0; i < cuts; i++) printf(i ? ", %llu" : "%llu", (unsigned long long)resent[i]);
    puts("]}");
}

static int send_all(const struct sockaddr_in *at, uint64_t size) {
    static uint64_t resent[CUTS_MAX];
    double began = now_s();
    uint64_t sent = 0, next = 0, count;
    for (int cuts = -1; cuts < CUTS_MAX;) {
        int link = connected(at);
        if (recv(link, &count, sizeof count, MSG_WAITALL) == sizeof count) {
            uint64_t have = be64toh(count);
            if (++cuts) resent[cuts - 1] = next - have;
            next = send_from(link, have, size);
            sent += next - have;
            if (have == size || (next == size && recv(link, &count, sizeof count, MSG_WAITALL) == sizeof count)) {
                report(now_s() - began, sent, resent, cuts);
                close(link);
                return 0;
            }
        }
        close(link);
    }
    return fprintf(stderr, "gave up after %d cuts\n", CUTS_MAX), 1;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "receive")) return receive(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 5 && !strcmp(argv[1], "send")) {
        struct sockaddr_in at = address(argv[2], argv[3]);
        return send_all(&at, strtoull(argv[4], NULL, 10));
    }
    return fprintf(stderr, "stream: receive PORT BYTES, or send HOST PORT BYTES\n"), 2;
}

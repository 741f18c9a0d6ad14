/* The least that resuming can be: a TCP stream that goes on at the last byte received. No frames, no checksums, no disk.
 *
 * stream receive PORT BYTES            tells each connection how much it has, until it has BYTES and has said so
 * stream send HOST PORT BYTES          sends what is missing, connects again at once whenever the connection breaks
 *
 * The sender prints {"seconds", "sent_bytes", "resent_bytes"}: from its first connect until the receiver has told that
 * it has all; a list of what each cut made it send again. It keeps little in the socket, so that this is little, too.
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
    UNSENT = 8 * 1024, /* what may wait for TCP to send it: 65 ms at 1 Mbit/s */
    PIECE = 4 * 1024,  /* written at a time: a socket that is ready would take far more */
    RETRY_US = 50000,  /* only where connecting itself fails: no busy loop */
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
        uint64_t told = htobe64(have);
        ssize_t n = send(link, &told, sizeof told, MSG_NOSIGNAL);
        while (n > 0 && have < size && (n = recv(link, block, sizeof block, 0)) > 0) have += (uint64_t)n;
        told = htobe64(have);
        /* All is there: say so, and wait for the sender to close, for the word may be lost with the connection. */
        if (have == size && send(link, &told, sizeof told, MSG_NOSIGNAL) > 0 && recv(link, block, 1, 0) == 0) return 0;
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

/* Where it got to: `size`, or less where the connection broke. */
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
    uint64_t sent = 0, next = 0, told;
    for (int cuts = -1; cuts < CUTS_MAX;) {
        int link = connected(at);
        if (recv(link, &told, sizeof told, MSG_WAITALL) == sizeof told) {
            uint64_t have = be64toh(told);
            if (++cuts) resent[cuts - 1] = next - have;
            next = send_from(link, have, size);
            sent += next - have;
            if (have == size || (next == size && recv(link, &told, sizeof told, MSG_WAITALL) == sizeof told)) {
                report(now_s() - began, sent, resent, cuts);
                close(link);
                return 0;
            }
        }
        close(link);
    }
    return fprintf(stderr, "cut %d times: given up\n", CUTS_MAX), 1;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "receive")) return receive(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 5 && !strcmp(argv[1], "send")) {
        struct sockaddr_in at = address(argv[2], argv[3]);
        return send_all(&at, strtoull(argv[4], NULL, 10));
    }
    return fprintf(stderr, "stream: receive PORT BYTES, or send HOST PORT BYTES\n"), 2;
}

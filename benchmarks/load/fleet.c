// A fleet of devices in one thread: they connect, open uploads, are cut, reconnect, and append. Commands are lines on
// standard input, each answered by a line of JSON on standard output. Connections stay open between commands.
//
//   fleet PORT DEVICES OUTSTANDING uplinkd|tls|mqtt
//     connect FILE                 connect all; FILE has a record for each: u32 big-endian length, then its first bytes
//     cut                          reset all connections
//     append DEVICES CHUNKS BYTES INTERVAL_S
//                                  let the first DEVICES send one chunk per interval, evenly spread
//
// OUTSTANDING bounds the connections that await an answer. With more than the listener's backlog, the result would show
// the kernel's SYN retries and not the server.

#define _GNU_SOURCE
#include "device.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
    CHUNK_HEADER_BYTES = PREFIX_BYTES + 17,
    CHUNK_BYTES_MAX = 1 << 20,
    EVENTS = 256,
    SILENCE_S = 30,  // give up when the server sends nothing for this long
};

static uint8_t chunk[CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX];

// Waits at most `wait_s` for events and handles them. Returns their number.
static int serve(double wait_s, uint8_t *const *preambles) {
    struct epoll_event events[EVENTS];
    struct timespec wait = {(time_t)wait_s, (long)((wait_s - (double)(time_t)wait_s) * 1e9)};
    int count = epoll_pwait2(fleet.epoll, events, EVENTS, &wait, NULL);
    if (count < 0) die("cannot wait");
    for (int i = 0; i < count; i++) {
        struct device *device = events[i].data.ptr;
        if (!device->greeted) greet(device, preambles[device - fleet.device]);
        if (device->greeted) receive(device);
    }
    return count;
}

static uint8_t **load(const char *path) {
    struct stat status;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &status)) die("cannot open %s", path);
    uint8_t *at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fileno(file), 0), *first = at;
    uint8_t **preambles = calloc((size_t)fleet.devices, sizeof *preambles);
    for (int i = 0; i < fleet.devices; at += 4 + u32(at), i++) {
        if (at == MAP_FAILED || at - first >= status.st_size) die("%s: only %d records", path, i);
        preambles[i] = at;
    }
    fclose(file);
    return preambles;
}

static void connect_all(const char *path) {
    uint8_t **preambles = load(path);
    double began = now_s();
    fleet.open = 0;
    for (int begun = 0; fleet.open < fleet.devices;) {
        while (begun < fleet.devices && begun - fleet.open < fleet.outstanding) {
            begin(&fleet.device[begun], preambles[begun]);
            begun++;
        }
        if (!serve(SILENCE_S, preambles)) die("%d of %d are open, no answer for %d s", fleet.open, fleet.devices, SILENCE_S);
    }
    printf("{\"devices\": %d, \"seconds\": %.6f}\n", fleet.devices, now_s() - began);
    free(preambles);
}

static void cut_all(void) {
    struct linger reset = {1, 0};  // makes close() send RST, which leaves no TIME_WAIT
    double began = now_s();
    for (int i = 0; i < fleet.devices; i++) {
        SSL_free(fleet.device[i].tls);
        setsockopt(fleet.device[i].socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fleet.device[i].socket);
    }
    printf("{\"devices\": %d, \"seconds\": %.6f}\n", fleet.devices, now_s() - began);
}

static void send_chunk(struct device *device, double *sent_at) {
    chunk[0] = CHUNK;
    chunk[3] = 1;  // the stream
    uint32_t length = htobe32((uint32_t)(CHUNK_HEADER_BYTES - PREFIX_BYTES + fleet.chunk_bytes));
    memcpy(chunk + 4, &length, sizeof length);
    put_u64(chunk + PREFIX_BYTES, device->sent);
    put_u64(chunk + PREFIX_BYTES + 8, device->sent + fleet.chunk_bytes - 1);
    *sent_at = now_s();
    transmit(device, chunk, CHUNK_HEADER_BYTES + fleet.chunk_bytes);
    device->sent += fleet.chunk_bytes;
}

// Fills the chunk's data once. Chunks differ only in their headers, which the checksum does not cover.
static void fill_chunk(void) {
    uint8_t sum = 0;
    for (uint64_t i = 0; i < fleet.chunk_bytes; i++) sum += chunk[CHUNK_HEADER_BYTES + i] = (uint8_t)(i * 2654435761u >> 8);
    chunk[CHUNK_HEADER_BYTES - 1] = sum;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void append(int devices, int chunks, double interval_s) {
    uint64_t due = (uint64_t)devices * (uint64_t)chunks;
    double step_s = interval_s / devices;
    double *sent_at = calloc(due, sizeof *sent_at), *latency = calloc(due, sizeof *latency);
    for (int i = 0; i < devices; i++) {
        fleet.device[i].sent_at = sent_at + i * chunks;
        fleet.device[i].latency = latency + i * chunks;
    }
    fill_chunk();
    fleet.acks = fleet.chunks = 0;
    double began = now_s(), last = began;
    while (fleet.acks < due) {
        double now = now_s();
        for (; fleet.chunks < due && now >= began + (double)fleet.chunks * step_s; fleet.chunks++) {
            int i = (int)(fleet.chunks % (uint64_t)devices);
            send_chunk(&fleet.device[i], sent_at + i * chunks + fleet.chunks / (uint64_t)devices);
        }
        double next = fleet.chunks < due ? began + (double)fleet.chunks * step_s - now : SILENCE_S;
        if (serve(next > 0 ? next : 0, NULL)) last = now_s();
        if (now - last > SILENCE_S) die("%lu of %lu chunks are acknowledged, no answer for %d s", fleet.acks, due, SILENCE_S);
    }
    double took = now_s() - began;
    qsort(latency, due, sizeof *latency, ascending);
    printf("{\"chunks\": %lu, \"seconds\": %.6f, \"p50_ms\": %.6f, \"p99_ms\": %.6f, \"max_ms\": %.6f}\n", due, took,
           latency[(due - 1) / 2] * 1e3, latency[(due * 99 + 99) / 100 - 1] * 1e3, latency[due - 1] * 1e3);
    free(sent_at);
    free(latency);
}

static SSL_CTX *tls_context(void) {
    static const unsigned char alpn[] = "\x09uplinkd/1";
    // Without verification: the server's certificate was made for this run.
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn - 1);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    return context;
}

static void run_command(const char *line) {
    char path[4096];
    int devices, chunks;
    double interval_s;
    if (sscanf(line, "connect %4095s", path) == 1)
        connect_all(path);
    else if (!strcmp(line, "cut\n"))
        cut_all();
    else if (sscanf(line, "append %d %d %lu %lf", &devices, &chunks, &fleet.chunk_bytes, &interval_s) == 4 &&
             devices > 0 && devices <= fleet.devices && chunks > 0 && fleet.chunk_bytes > 0 &&
             fleet.chunk_bytes <= CHUNK_BYTES_MAX && interval_s >= 0)
        append(devices, chunks, interval_s);
    else
        die("bad command: %s", line);
    fflush(stdout);
}

int main(int count, char **words) {
    if (count != 5) die("fleet PORT DEVICES OUTSTANDING uplinkd|tls|mqtt");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    fleet.server = (struct sockaddr_in){AF_INET, htons((uint16_t)atoi(words[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    fleet.devices = atoi(words[2]);
    fleet.outstanding = atoi(words[3]);
    fleet.mqtt = !strcmp(words[4], "mqtt");
    fleet.tls = strcmp(words[4], "tls") ? NULL : tls_context();
    fleet.device = calloc((size_t)fleet.devices, sizeof *fleet.device);
    fleet.epoll = epoll_create1(EPOLL_CLOEXEC);
    for (char line[8192]; fgets(line, sizeof line, stdin);) run_command(line);
    return 0;
}

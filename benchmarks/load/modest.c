// Modest devices in one thread: each appends a little at a time, and takes the time from making a chunk to its ACK.
//
//   modest --port P --small FILE [--large FILE] [--whole FILE] [--tls]
//
// The files hold a record for each device: u32 length, then what it sends first.
//
//   small   HELLO and OPEN of a file of unknown size; 1,000 bytes are made each 100 ms
//   large   the same; 32 KiB are made each 500 ms, and sent over a link of 3 Mbit/s, in pieces. Such a chunk needs memory
//           from the receive pool
//   whole   HELLO, OPEN, CHUNK and FINISH, with ten zeros in the name to number the files. Each device sends one file a
//           second, on a connection of its own
//
// Chunks are made on time whatever the server does, and also while a device is not connected. A device that loses its
// connection waits as long as the server asks, or a fraction of a second, and resumes at N.
//
// The first line of output comes once all devices of `small` and `large` are connected, or after 20 s: {"ready"}. Each
// line "measure SECONDS" on standard input is answered by a line of JSON; what is made in that time and has no ACK two
// seconds later counts with the time that it has waited. Lost and refused connections count since the line before.
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>

#include "connection.h"
#include "image.h"

enum {
    MADE = 4096,            // times remembered, so a device may be this many chunks behind
    WHOLE_AT_ONCE = 512,    // connections of `whole`
    SOURCES = 250,          // addresses of the devices, 127.0.1.1 and following
    EVENTS = 256,
    PIECE_BYTES = 8 << 10,  // of a large chunk, each PIECE_S
};

static const double READY_S = 20, LINGER_S = 2, WHOLE_DEADLINE_S = 5, RETRY_S = 0.5, PIECE_S = 0.02;

struct samples {
    double *waited_s;
    size_t count, room, unanswered;
};

struct group {
    const char *name;
    size_t chunk_bytes, devices, turn;
    double interval_s, next_s;
    struct device *device;
    struct samples samples;
};

struct device {
    struct connection connection;
    struct group *group;
    struct record preamble;
    size_t number, preamble_sent, frame_sent, frame_bytes;
    bool is_open, is_welcome, is_counted;
    uint8_t pong[PREFIX + 4];
    bool has_pong;
    double again_s, began_s, piece_s;
    uint64_t acked, sent, made;  // bytes of the file, but `made` counts chunks
    double *made_s;
    uint8_t *frame;
};

static struct {
    int port, poll;
    SSL_CTX *tls;
    double from_s, until_s;  // what is made between the two is measured
    unsigned long cut, refused, tries, welcomed;
    uint16_t code;  // of the last ERROR, REFUSED or GOAWAY
} fleet;

static struct group small = {"small", 1000, 0, 0, 0.1, 0, NULL, {0}};
static struct group large = {"large", 32 << 10, 0, 0, 0.5, 0, NULL, {0}};
static struct group whole = {"whole", 0, 0, 0, 1, 0, NULL, {0}};

static bool is_measured(double made_s) { return made_s >= fleet.from_s && made_s < fleet.until_s; }

static void keep(struct samples *samples, double waited_s) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 4096;
        samples->waited_s = realloc(samples->waited_s, samples->room * sizeof *samples->waited_s);
        if (!samples->waited_s) die("no memory for samples");
    }
    samples->waited_s[samples->count++] = waited_s;
}

static void begin(struct device *device) {
    char from[16];
    int net = device->group == &whole ? 2 : 1;
    snprintf(from, sizeof from, "127.0.%d.%zu", net, 1 + device->number % SOURCES);
    device->preamble_sent = device->frame_sent = device->frame_bytes = 0;
    device->is_open = device->is_welcome = device->has_pong = false;
    device->again_s = monotonic_s() + RETRY_S;
    connection_begin(&device->connection, fleet.port, from, fleet.tls, fleet.poll, device);
}

static void lose(struct device *device) {
    if (device->is_open && device->group != &whole) fleet.cut++;
    connection_close(&device->connection);
    device->is_open = false;
    double again_s = monotonic_s() + RETRY_S * (0.5 + drand48());
    if (device->again_s < again_s) device->again_s = again_s;
}

static void acknowledge(struct device *device, uint64_t until) {
    double now = monotonic_s();
    size_t bytes = device->group->chunk_bytes;
    for (; device->acked + bytes <= until; device->acked += bytes) {
        double made_s = device->made_s[device->acked / bytes % MADE];
        if (is_measured(made_s)) keep(&device->group->samples, now - made_s);
    }
}

static bool take(void *owner, uint8_t *frame) {
    struct device *device = owner;
    const uint8_t *body = frame + PREFIX;
    switch (frame[0]) {
        case WELCOME:
            device->is_welcome = true;
            if (device->group == &whole && is_measured(device->began_s)) fleet.welcomed++;
            break;
        case OPENED:
            if (device->group == &whole) break;
            acknowledge(device, load64(body + 10));
            device->sent = load64(body + 10);
            device->is_open = true;
            break;
        case ACK:
            if (device->group != &whole) acknowledge(device, load64(body));
            break;
        case NACK:
            if (load64(body + 2) < device->sent) device->sent = load64(body + 2);
            break;
        case PING:
            memcpy(device->pong, frame, sizeof device->pong);
            device->pong[0] = PONG;
            device->has_pong = true;
            break;
        case FINISHED:
            if (is_measured(device->began_s)) keep(&whole.samples, monotonic_s() - device->began_s);
            device->is_counted = true;
            return false;
        case REFUSED:
        case GOAWAY:
        case ERROR:
            fleet.code = load16(body);
            fleet.refused += frame[0] == REFUSED;
            device->again_s = monotonic_s() + asked_wait_ms(frame) / 1e3;
            return frame[0] == GOAWAY;  // what is under way still gets its ACK
        default:
            break;
    }
    return true;
}

static void make_next_frame(struct device *device) {
    size_t bytes = device->group->chunk_bytes;
    if (device->has_pong) {
        memcpy(device->frame, device->pong, sizeof device->pong);
        device->frame_bytes = sizeof device->pong;
        device->has_pong = false;
    } else if (device->is_open && device->sent < device->made * bytes) {
        store_prefix(device->frame, CHUNK, (uint32_t)(CHUNK_HEADER - PREFIX + bytes));
        store64(device->frame + PREFIX, device->sent);
        store64(device->frame + PREFIX + 8, device->sent + bytes - 1);
        memset(device->frame + CHUNK_HEADER - 1, 0, 1 + bytes);  // zeros, whose sum is 0
        device->frame_bytes = CHUNK_HEADER + bytes;
        device->sent += bytes;
    } else {
        device->frame_bytes = 0;
    }
    device->frame_sent = 0;
}

// Sends what may be sent. Returns false once the connection is over.
static bool send_on(struct device *device) {
    struct record preamble = device->preamble;
    while (device->preamble_sent < preamble.bytes) {
        ssize_t count = connection_write(&device->connection, preamble.data + device->preamble_sent,
                                         preamble.bytes - device->preamble_sent);
        if (count <= 0) return count == 0;
        device->preamble_sent += (size_t)count;
    }
    for (;;) {
        if (device->frame_sent == device->frame_bytes) make_next_frame(device);
        if (!device->frame_bytes) return true;
        size_t bytes = device->frame_bytes - device->frame_sent;
        if (device->group == &large) {
            if (monotonic_s() < device->piece_s) return true;
            bytes = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
            device->piece_s = monotonic_s() + PIECE_S;
        }
        ssize_t count = connection_write(&device->connection, device->frame + device->frame_sent, bytes);
        if (count <= 0) return count == 0;
        device->frame_sent += (size_t)count;
    }
}

static void serve(struct device *device) {
    if (device->connection.fd < 0) return;
    bool goes_on = connection_read(&device->connection, take, device) && send_on(device);
    if (!goes_on) lose(device);
}

// The chunk that is due now, for one device after the other.
static void make_chunks(struct group *group, double now) {
    for (; group->devices && group->next_s <= now; group->next_s += group->interval_s / (double)group->devices) {
        struct device *device = &group->device[group->turn++ % group->devices];
        if (device->made - device->acked / group->chunk_bytes == MADE) die("a device is %d chunks behind", MADE);
        device->made_s[device->made++ % MADE] = group->next_s;
        if (device->is_open && !send_on(device)) lose(device);
        if (device->connection.fd < 0 && now >= device->again_s) begin(device);
    }
}

// Sends the next piece of each large chunk.
static void send_pieces(void) {
    for (struct device *device = large.device; device < large.device + large.devices; device++)
        if (device->is_open && !send_on(device)) lose(device);
}

static void number_the_file(struct record preamble, size_t number) {
    char digits[16];
    uint8_t *at = memmem(preamble.data, preamble.bytes, "0000000000", 10);
    if (!at) die("a record of --whole has no ten zeros");
    snprintf(digits, sizeof digits, "%010zu", number);
    memcpy(at, digits, 10);
}

// A file that fails counts with the whole time that it was given.
static void end_try(struct device *device) {
    if (!device->is_counted && is_measured(device->began_s)) {
        keep(&whole.samples, WHOLE_DEADLINE_S);
        whole.samples.unanswered++;
    }
    connection_close(&device->connection);
    device->is_counted = true;
}

// Begins the file that is due now, on a connection that is free.
static void make_whole_files(double now, const struct record *preambles) {
    for (struct device *device = whole.device; device < whole.device + WHOLE_AT_ONCE; device++)
        if (!device->is_counted && (device->connection.fd < 0 || now - device->began_s > WHOLE_DEADLINE_S))
            end_try(device);
    for (; whole.devices && whole.next_s <= now; whole.next_s += whole.interval_s / (double)whole.devices) {
        struct device *device = whole.device;
        while (device < whole.device + WHOLE_AT_ONCE && !device->is_counted) device++;
        if (device == whole.device + WHOLE_AT_ONCE) die("%d files wait at once", WHOLE_AT_ONCE);
        struct record preamble = preambles[whole.turn % whole.devices];
        free((void *)device->preamble.data);
        device->preamble = (struct record){memcpy(malloc(preamble.bytes), preamble.data, preamble.bytes), preamble.bytes};
        number_the_file(device->preamble, whole.turn);
        device->number = whole.turn++ % whole.devices;
        device->began_s = whole.next_s;
        device->is_counted = false;
        fleet.tries += is_measured(device->began_s);
        begin(device);
    }
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void forget(struct group *group) { group->samples.count = group->samples.unanswered = 0; }

static void count_unanswered(struct group *group, double now) {
    for (struct device *device = group->device; device < group->device + group->devices; device++)
        for (uint64_t chunk = device->acked / group->chunk_bytes; chunk < device->made; chunk++)
            if (is_measured(device->made_s[chunk % MADE])) {
                keep(&group->samples, now - device->made_s[chunk % MADE]);
                group->samples.unanswered++;
            }
}

static void print_group(const struct group *group) {
    const struct samples *samples = &group->samples;
    size_t count = samples->count;
    qsort(samples->waited_s, count, sizeof *samples->waited_s, ascending);
    printf("\"%s\": {\"count\": %zu, \"unanswered\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}, ",
           group->name, count, samples->unanswered, count ? samples->waited_s[(count - 1) / 2] * 1e3 : 0,
           count ? samples->waited_s[(count * 99 + 99) / 100 - 1] * 1e3 : 0,
           count ? samples->waited_s[count - 1] * 1e3 : 0);
}

static size_t connected(void) {
    size_t count = 0;
    for (size_t i = 0; i < small.devices; i++) count += small.device[i].is_open;
    for (size_t i = 0; i < large.devices; i++) count += large.device[i].is_open;
    return count;
}

static void report(double now) {
    count_unanswered(&small, now);
    count_unanswered(&large, now);
    for (struct device *device = whole.device; device < whole.device + WHOLE_AT_ONCE; device++)
        if (!device->is_counted) end_try(device);
    printf("{");
    print_group(&small);
    print_group(&large);
    print_group(&whole);
    printf("\"devices\": %zu, \"connected\": %zu, \"tries\": %lu, \"welcomed\": %lu, \"cut\": %lu, \"refused\": %lu, "
           "\"last_code\": %u, \"cpu_s\": %.3f}\n",
           small.devices + large.devices, connected(), fleet.tries, fleet.welcomed, fleet.cut, fleet.refused, fleet.code,
           cpu_s());
    fflush(stdout);
    fleet.from_s = fleet.until_s = 0;
    fleet.cut = fleet.refused = fleet.code = 0;
}

// Reads a command. Returns false at the end of input.
static bool obey(double now) {
    char line[256];
    double seconds;
    if (!fgets(line, sizeof line, stdin)) return false;
    if (sscanf(line, "measure %lf", &seconds) != 1) die("bad command: %s", line);
    forget(&small);
    forget(&large);
    forget(&whole);
    fleet.tries = fleet.welcomed = 0;
    fleet.from_s = now;
    fleet.until_s = now + seconds;
    return true;
}

static bool all_answered(const struct group *group) {
    for (struct device *device = group->device; device < group->device + group->devices; device++)
        if (device->acked / group->chunk_bytes < device->made &&
            device->made_s[device->acked / group->chunk_bytes % MADE] < fleet.until_s)
            return false;
    return true;
}

static bool is_over(double now) {
    if (!fleet.until_s || now < fleet.until_s) return false;
    if (now > fleet.until_s + LINGER_S) return true;
    for (size_t i = 0; i < WHOLE_AT_ONCE; i++)
        if (!whole.device[i].is_counted && is_measured(whole.device[i].began_s)) return false;
    return all_answered(&small) && all_answered(&large);
}

static void run(const struct record *preambles) {
    struct epoll_event events[EVENTS], commands = {EPOLLIN, {.ptr = NULL}};
    double began_s = monotonic_s();
    bool is_ready = false;
    small.next_s = large.next_s = whole.next_s = began_s;
    epoll_ctl(fleet.poll, EPOLL_CTL_ADD, STDIN_FILENO, &commands);
    for (;;) {
        int count = epoll_wait(fleet.poll, events, EVENTS, 1);
        double now = monotonic_s();
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else if (!obey(now))
                return;
        make_chunks(&small, now);
        make_chunks(&large, now);
        send_pieces();
        if (is_ready) make_whole_files(now, preambles);
        if (!is_ready && (connected() == small.devices + large.devices || now > began_s + READY_S)) {
            is_ready = true;
            whole.next_s = now;
            printf("{\"ready\": %zu}\n", connected());
            fflush(stdout);
        }
        if (is_over(now)) report(now);
    }
}

static struct record *records(const char *path, size_t *count) {
    struct record *found = NULL, file = mapped(path);
    for (*count = 0; file.bytes; ++*count) {
        found = realloc(found, (*count + 1) * sizeof *found);
        found[*count] = next_record(&file, path);
    }
    return found;
}

static void populate(struct group *group, const char *path) {
    const struct record *preambles = path ? records(path, &group->devices) : NULL;
    group->device = calloc(group->devices, sizeof *group->device);
    for (size_t number = 0; number < group->devices; number++) {
        struct device *device = &group->device[number];
        *device = (struct device){.connection.fd = -1, .group = group, .preamble = preambles[number], .number = number};
        device->made_s = calloc(MADE, sizeof *device->made_s);
        device->frame = calloc(1, CHUNK_HEADER + group->chunk_bytes);
    }
}

int main(int count, char **arguments) {
    enum { PORT = 1, SMALL, LARGE, WHOLE, TLS };
    static const struct option known[] = {{"port", 1, NULL, PORT},   {"small", 1, NULL, SMALL}, {"large", 1, NULL, LARGE},
                                          {"whole", 1, NULL, WHOLE}, {"tls", 0, NULL, TLS},     {0}};
    const char *small_path = NULL, *large_path = NULL, *whole_path = NULL;
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
            case PORT: fleet.port = atoi(optarg); break;
            case SMALL: small_path = optarg; break;
            case LARGE: large_path = optarg; break;
            case WHOLE: whole_path = optarg; break;
            case TLS: fleet.tls = tls_client(); break;
            default: exit(2);
        }
    }
    if (!fleet.port || !small_path) die("usage: see the head of modest.c");
    signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
    setbuf(stdin, NULL);  // so that poll sees every line
    fleet.poll = epoll_create1(EPOLL_CLOEXEC);
    populate(&small, small_path);
    populate(&large, large_path);
    const struct record *preambles = whole_path ? records(whole_path, &whole.devices) : NULL;
    whole.device = calloc(WHOLE_AT_ONCE, sizeof *whole.device);
    for (size_t i = 0; i < WHOLE_AT_ONCE; i++) {
        whole.device[i] = (struct device){.connection.fd = -1, .group = &whole, .is_counted = true};
        whole.device[i].frame = calloc(1, CHUNK_HEADER);
    }
    run(preambles);
    return 0;
}

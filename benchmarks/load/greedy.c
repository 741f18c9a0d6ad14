// Devices that send as many chunks as the window allows, to uploads in turn, until SIGTERM.
//
//   greedy --port P --hello FILE --connections N --streams N --chunk BYTES --kind sum8|compact|crc32c
//          [--overhead BYTES] [--chunks N] [--again] [--until-acked] [--from ADDRESS]
//
// FILE holds HELLOs, each behind its length (u32); the connections use them in turn. In the window, a chunk costs its
// data and --overhead. --again sends the first chunk of each upload again and again, without regard to the window. The
// data is zeros. After --chunks a connection sends nothing more; with --until-acked the program ends once all of these are
// acknowledged. Uploads that are there already go on.
//
// A connection that ends is made again after half a second, or when the server says. Prints {"ready"}, the number of
// connections with all uploads open, once that no longer grows for a second; and at the end what was sent and answered,
// and the seconds since the first chunk.
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>

#include "connection.h"
#include "image.h"

enum { OUTPUT_BYTES = 64 << 10, EVENTS = 256, NAME_BYTES = 24, OPEN_BYTES = PREFIX + 9 + 3 + NAME_BYTES };

static const double RETRY_S = 0.5, READY_S = 10, SETTLED_S = 1;

struct stream {
    uint64_t sent, acked;  // chunks
    bool is_open;
};

struct device {
    struct connection connection;
    struct stream *stream;
    size_t number, open, answered, turn, output_at, output_bytes;
    uint64_t unacknowledged, window_bytes, chunks;
    double again_s;
    uint8_t *output;
};

static struct {
    int port, connections, streams, poll;
    size_t chunk_bytes, overhead_bytes, header_bytes;
    uint64_t chunks_max;
    bool again, until_acked;
    enum frame_type kind;
    const char *from, *hello;
} options = {.connections = 1, .streams = 1, .chunk_bytes = 1, .kind = CHUNK, .from = "127.0.0.2"};

static struct {
    uint64_t chunks, acks, nacks, refused, errors, connects, ended;
    double began_s;
    uint16_t code;
} total;

static struct record *hellos;
static size_t hello_count;
static volatile sig_atomic_t is_over;

static void stop(int number) { is_over = number; }

static size_t put_open(uint8_t *to, size_t device, int stream) {
    store_prefix(to, OPEN, OPEN_BYTES - PREFIX);
    to[2] = (uint8_t)(stream >> 8);
    to[3] = (uint8_t)stream;
    to[PREFIX] = 0;  // resume or create
    store64(to + PREFIX + 1, UINT64_MAX);
    to[PREFIX + 9] = TLV_NAME;
    to[PREFIX + 10] = 0;
    to[PREFIX + 11] = NAME_BYTES;
    char name[64];
    snprintf(name, sizeof name, "greedy-%08zu-%08d", device, stream);
    memcpy(to + PREFIX + 12, name, NAME_BYTES);
    return OPEN_BYTES;
}

static void begin(struct device *device) {
    struct record hello = hellos[device->number % hello_count];
    memset(device->stream, 0, sizeof *device->stream * (size_t)options.streams);
    device->open = device->answered = device->turn = device->output_at = 0;
    device->unacknowledged = device->window_bytes = 0;
    memcpy(device->output, hello.data, hello.bytes);
    device->output_bytes = hello.bytes;
    for (int stream = 1; stream <= options.streams; stream++)
        device->output_bytes += put_open(device->output + device->output_bytes, device->number, stream);
    total.connects++;
    device->again_s = monotonic_s() + RETRY_S;
    connection_begin(&device->connection, options.port, options.from, NULL, options.poll, device);
}

static struct stream *stream_of(struct device *device, const uint8_t *frame) {
    uint16_t number = load16(frame + 2);
    return number >= 1 && number <= options.streams ? &device->stream[number - 1] : NULL;
}

static bool take(void *owner, uint8_t *frame) {
    struct device *device = owner;
    struct stream *stream = stream_of(device, frame);
    const uint8_t *body = frame + PREFIX;
    switch (frame[0]) {
        case WELCOME:
            device->window_bytes = load32(body + 16);
            break;
        case OPENED:
            device->answered++;
            if (!stream || body[8] != 1) break;
            stream->sent = stream->acked = load64(body + 10) / options.chunk_bytes;
            stream->is_open = true;
            device->open++;
            break;
        case ACK:
            total.acks++;
            if (!stream || load64(body) / options.chunk_bytes <= stream->acked) break;
            device->unacknowledged -= load64(body) / options.chunk_bytes - stream->acked;
            stream->acked = load64(body) / options.chunk_bytes;
            if (stream->sent < stream->acked) stream->sent = stream->acked;
            break;
        case NACK: {
            uint64_t from = load64(body + 2) / options.chunk_bytes;
            total.nacks++;
            if (!stream || from >= stream->sent || from < stream->acked) break;
            device->unacknowledged -= stream->sent - from;
            stream->sent = from;
            break;
        }
        case REFUSED:
        case ERROR:
            total.refused += frame[0] == REFUSED;
            total.errors += frame[0] == ERROR;
            total.code = load16(body);
            if (frame[0] == ERROR && stream) {
                if (stream->is_open)
                    device->unacknowledged -= stream->sent - stream->acked, device->open--;
                else
                    device->answered++;
                stream->is_open = false;
                break;
            }
            device->again_s = monotonic_s() + RETRY_S + asked_wait_ms(frame) / 1e3;
            return false;
        default:
            break;
    }
    return true;
}

// Puts a chunk of the upload whose turn it is behind the output. Returns false when none may be sent: also before all
// are open, so that they share the chunks.
static bool put_chunk(struct device *device) {
    uint64_t cost = options.chunk_bytes + options.overhead_bytes;
    if (device->answered < (size_t)options.streams || device->chunks == options.chunks_max) return false;
    if (!options.again && (device->unacknowledged + 1) * cost > device->window_bytes) return false;
    struct stream *stream = NULL;
    for (int tries = 0; tries < options.streams && !stream; tries++, device->turn++)
        if (device->stream[device->turn % (size_t)options.streams].is_open)
            stream = &device->stream[device->turn % (size_t)options.streams];
    if (!stream) return false;
    uint64_t start = options.again ? 0 : stream->sent * options.chunk_bytes, end = start + options.chunk_bytes - 1;
    uint8_t *to = device->output + device->output_bytes;
    store_prefix(to, options.kind, (uint32_t)(options.header_bytes - PREFIX + options.chunk_bytes));
    size_t number = (size_t)(stream - device->stream) + 1;
    to[2] = (uint8_t)(number >> 8);
    to[3] = (uint8_t)number;
    if (options.kind == CHUNK_COMPACT) {
        store32(to + PREFIX, (uint32_t)start);
        store32(to + PREFIX + 4, (uint32_t)end);
        to[PREFIX + 8] = 0;
    } else {
        store64(to + PREFIX, start);
        store64(to + PREFIX + 8, end);
        to[PREFIX + 16] = 0;
    }
    memset(to + options.header_bytes, 0, options.chunk_bytes);
    if (options.kind == CHUNK_CRC32C)
        store32(to + CRC_COVERED, crc32c(crc32c(0, to, CRC_COVERED), to + CHUNK_CRC32C_HEADER, options.chunk_bytes));
    device->output_bytes += options.header_bytes + options.chunk_bytes;
    stream->sent++;
    device->unacknowledged++;
    device->chunks++;
    if (!total.chunks++) total.began_s = monotonic_s();
    return true;
}

// Sends as much as window and socket allow. Returns false once the connection is over.
static bool send_on(struct device *device) {
    for (;;) {
        if (device->output_at == device->output_bytes) {
            size_t frame_bytes = options.header_bytes + options.chunk_bytes;
            device->output_at = device->output_bytes = 0;
            while (device->output_bytes + frame_bytes <= OUTPUT_BYTES || !device->output_bytes)
                if (!put_chunk(device)) break;
            if (!device->output_bytes) return true;
        }
        ssize_t count = connection_write(&device->connection, device->output + device->output_at,
                                         device->output_bytes - device->output_at);
        if (count <= 0) return count == 0;
        device->output_at += (size_t)count;
        if (options.again) return true;  // and read the answers before the next
    }
}

static void lose(struct device *device) {
    if (options.until_acked) die("the server ended a connection, code 0x%04x", total.code);
    connection_close(&device->connection);
    total.ended++;
}

static void serve(struct device *device) {
    if (device->connection.fd < 0) return;
    if (!connection_read(&device->connection, take, device) || !send_on(device)) lose(device);
}

static size_t ready(const struct device *devices) {
    size_t count = 0;
    for (int number = 0; number < options.connections; number++)
        count += devices[number].connection.fd >= 0 && devices[number].open == (size_t)options.streams;
    return count;
}

static void say_ready(size_t count) {
    printf("{\"ready\": %zu}\n", count);
    fflush(stdout);
}

static bool all_acknowledged(const struct device *devices) {
    for (int number = 0; number < options.connections; number++)
        if (devices[number].chunks < options.chunks_max || devices[number].unacknowledged) return false;
    return true;
}

static void run(struct device *devices) {
    struct epoll_event events[EVENTS];
    double began_s = monotonic_s(), grew_s = began_s;
    size_t most = 0;
    bool is_ready = false;
    while (!is_over && !(options.until_acked && all_acknowledged(devices))) {
        int count = epoll_wait(options.poll, events, EVENTS, options.again ? 1 : 20);
        double now = monotonic_s();
        for (int i = 0; i < count; i++) serve(events[i].data.ptr);
        for (int number = 0; number < options.connections; number++) {
            struct device *device = &devices[number];
            if (device->connection.fd < 0 && now >= device->again_s) begin(device);
            if (options.again && device->connection.fd >= 0 && device->open && !send_on(device)) lose(device);
        }
        if (is_ready) continue;
        size_t open = ready(devices);
        if (open > most) most = open, grew_s = now;
        is_ready = most == (size_t)options.connections || (most && now - grew_s > SETTLED_S) || now - began_s > READY_S;
        if (is_ready) say_ready(most);
    }
}

static void parse_options(int count, char **arguments) {
    enum { PORT = 1, HELLOS, CONNECTIONS, STREAMS, CHUNK_BYTES, KIND, OVERHEAD, CHUNKS, AGAIN, ACKED, FROM };
    static const struct option known[] = {
        {"port", 1, NULL, PORT},         {"hello", 1, NULL, HELLOS},    {"connections", 1, NULL, CONNECTIONS},
        {"streams", 1, NULL, STREAMS},   {"chunk", 1, NULL, CHUNK_BYTES}, {"kind", 1, NULL, KIND},
        {"overhead", 1, NULL, OVERHEAD}, {"chunks", 1, NULL, CHUNKS},   {"again", 0, NULL, AGAIN},
        {"until-acked", 0, NULL, ACKED}, {"from", 1, NULL, FROM},       {0}};
    options.chunks_max = UINT64_MAX;
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
            case PORT: options.port = atoi(optarg); break;
            case HELLOS: options.hello = optarg; break;
            case CONNECTIONS: options.connections = atoi(optarg); break;
            case STREAMS: options.streams = atoi(optarg); break;
            case CHUNK_BYTES: options.chunk_bytes = strtoull(optarg, NULL, 10); break;
            case KIND: options.kind = strcmp(optarg, "compact") ? chunk_type(optarg) : CHUNK_COMPACT; break;
            case OVERHEAD: options.overhead_bytes = strtoull(optarg, NULL, 10); break;
            case CHUNKS: options.chunks_max = strtoull(optarg, NULL, 10); break;
            case AGAIN: options.again = true; break;
            case ACKED: options.until_acked = true; break;
            case FROM: options.from = optarg; break;
            default: exit(2);
        }
    }
    if (!options.port || !options.hello || options.connections < 1 || options.streams < 1 || !options.chunk_bytes)
        die("usage: see the head of greedy.c");
    options.header_bytes = options.kind == CHUNK_COMPACT ? PREFIX + 9 : header_bytes(options.kind);
}

int main(int count, char **arguments) {
    parse_options(count, arguments);
    crc32c_prepare();
    signal(SIGTERM, stop);
    struct record file = mapped(options.hello);
    for (; file.bytes; hello_count++) {
        hellos = realloc(hellos, (hello_count + 1) * sizeof *hellos);
        hellos[hello_count] = next_record(&file, options.hello);
    }
    options.poll = epoll_create1(EPOLL_CLOEXEC);
    struct device *devices = calloc((size_t)options.connections, sizeof *devices);
    for (int number = 0; number < options.connections; number++) {
        devices[number].connection.fd = -1;
        devices[number].number = (size_t)number;
        devices[number].stream = calloc((size_t)options.streams, sizeof *devices->stream);
        devices[number].output = malloc(OUTPUT_BYTES + options.header_bytes + options.chunk_bytes);
    }
    run(devices);
    printf("{\"connects\": %lu, \"ended\": %lu, \"refused\": %lu, \"errors\": %lu, \"last_code\": %u, \"chunks\": %lu, "
           "\"acks\": %lu, \"nacks\": %lu, \"seconds\": %.6f, \"cpu_s\": %.3f}\n",
           total.connects, total.ended, total.refused, total.errors, total.code, total.chunks, total.acks, total.nacks,
           monotonic_s() - total.began_s, cpu_s());
    return 0;
}

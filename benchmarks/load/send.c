// Plays devices that each stream a file as chunks within the window. The daemon and the limit get the same sender.
//
//   send --port P --connections N --bytes BYTES --chunk BYTES --kind sum8|crc32c --payload FILE --finish FILE
//        [--preamble FILE [--overhead BYTES] | --no-handshake --window BYTES] [--tls] [--frames FILE]
//
// Each of the N devices sends BYTES bytes of the payload, which is repeated if it is shorter. All frames and checksums
// are made before the clock starts, so only sending is measured. The files of --preamble and --finish hold one record
// for each device: u32 length, then the frames to send before the chunks (HELLO and OPEN) and after them (FINISH). The
// window comes from the daemon's WELCOME. --frames keeps the frames for the next run with the same sizes. That run then
// allocates no memory for them, whose cost varies with what other programs have just freed.
//
// Prints {"acked_s": until all bytes are acknowledged, "finished_s": until all files are complete, "bytes", "frames",
// "acks", "cpu_s": its own}. Exits with 1 and a message on any frame but ACK, VERIFYING, FINISHED and PING.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <sys/epoll.h>

#include "../limit/channel.h"
#include "../limit/wire.h"
#include "image.h"

enum {
    SILENCE_MS = 120000,        // give up when nothing happens for this long
    WRITE_BYTES = 1 << 24,      // at most this per call, because OpenSSL takes an int
    INPUT_BYTES = 1 << 14,      // room for many ACKs, or for any control frame
};

struct device {
    struct channel channel;
    struct record finish;
    uint64_t acked;
    size_t sent, finish_sent, input_bytes;
    int is_finished;
    uint8_t input[INPUT_BYTES];
};

static struct options {
    int port, connections, tls, no_handshake;
    uint64_t window, overhead;
    struct content content;
    const char *preamble, *finish;
} options = {.connections = 1, .content.kind = CHUNK_CRC32C};

static uint64_t acks;
static int unacked, unfinished;
static double acked_s;

__attribute__((noreturn)) static void refuse(const uint8_t *frame, size_t body_bytes) {
    fprintf(stderr, "frame 0x%02x came instead of ACK or FINISHED: ", frame[0]);
    for (size_t at = 0; at < body_bytes; at++) {
        int byte = frame[PREFIX + at];
        fprintf(stderr, byte >= ' ' && byte < 127 ? "%c" : "\\x%02x", byte);
    }
    die(".");
}

static void greet(struct device *device, struct record preamble) {
    uint8_t *frame = device->input;
    channel_write_all(&device->channel, preamble.data, preamble.bytes);
    for (enum frame_type type = 0; type != OPENED;) {
        channel_read_all(&device->channel, frame, PREFIX);
        uint32_t length = load32(frame + 4);
        type = frame[0];
        if (length > INPUT_BYTES - PREFIX) die("frame 0x%02x of %u bytes in the handshake", type, length);
        channel_read_all(&device->channel, frame + PREFIX, length);
        if (type != WELCOME && type != OPENED) refuse(frame, length);
        if (type == WELCOME && length >= 20) options.window = load32(frame + PREFIX + 16);
        if (type == OPENED && (length < 18 || load64(frame + PREFIX + 10))) die("the upload is not new: delete it first");
    }
}

static void connect_device(struct device *device, SSL_CTX *tls) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    device->channel.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(device->channel.fd, (struct sockaddr *)&address, sizeof address))
        die("cannot connect to port %d: %s", options.port, strerror(errno));
    channel_prepare(&device->channel);
    if (tls) channel_secure(&device->channel, tls, 0);
}

// Sends as much as the window and the socket allow.
static void send_on(struct device *device, const struct image *image) {
    uint64_t chunks = device->acked / image->chunk_bytes + options.window / (image->chunk_bytes + options.overhead);
    size_t allowed = chunks >= image->count ? image->bytes : chunks * image->frame_bytes;
    while (device->sent < allowed) {
        size_t left = allowed - device->sent, bytes = left < WRITE_BYTES ? left : WRITE_BYTES;
        ssize_t count = channel_write(&device->channel, image->frames + device->sent, bytes);
        if (count < 0) die("the server ended a connection");
        if (count == 0) return;
        device->sent += (size_t)count;
    }
    while (device->sent == image->bytes && device->finish_sent < device->finish.bytes) {
        ssize_t count = channel_write(&device->channel, device->finish.data + device->finish_sent,
                                      device->finish.bytes - device->finish_sent);
        if (count < 0) die("the server ended a connection");
        if (count == 0) return;
        device->finish_sent += (size_t)count;
    }
}

static void acknowledge(struct device *device, uint64_t acked, const struct image *image, double start_s) {
    if (acked > image->data_bytes || acked < device->acked) die("ACK goes from %lu to %lu", device->acked, acked);
    if (acked == image->data_bytes && device->acked < acked && !--unacked) acked_s = monotonic_s() - start_s;
    device->acked = acked;
}

static void take_frame(struct device *device, const uint8_t *frame, size_t body_bytes, const struct image *image,
                       double start_s) {
    switch (frame[0]) {
        case ACK:
            acks++;
            acknowledge(device, load64(frame + PREFIX), image, start_s);
            break;
        case FINISHED:  // also acknowledges the last bytes, so they may get no ACK
            acknowledge(device, image->data_bytes, image, start_s);
            device->is_finished = 1;
            unfinished--;
            break;
        case VERIFYING:
        case PING:  // needs no PONG: the chunks show that the device is alive
            break;
        default:
            refuse(frame, body_bytes);
    }
}

static void receive_on(struct device *device, const struct image *image, double start_s) {
    // After FINISHED there is nothing left to read, and the server may close the connection at any time.
    while (!device->is_finished) {
        size_t room = INPUT_BYTES - device->input_bytes, at = 0;
        ssize_t count = channel_read(&device->channel, device->input + device->input_bytes, room);
        if (count == 0) return;
        if (count < 0) die("the server ended a connection");
        device->input_bytes += (size_t)count;
        while (device->input_bytes - at >= PREFIX) {
            size_t body = load32(device->input + at + 4);
            if (body > INPUT_BYTES - PREFIX) die("frame 0x%02x of %zu bytes", device->input[at], body);
            if (device->input_bytes - at < PREFIX + body) break;
            take_frame(device, device->input + at, body, image, start_s);
            at += PREFIX + body;
        }
        device->input_bytes -= at;
        memmove(device->input, device->input + at, device->input_bytes);
    }
}

static void stream(struct device *devices, const struct image *image) {
    struct epoll_event events[256];
    int poll = epoll_create1(0);
    for (int number = 0; number < options.connections; number++) {
        struct epoll_event wanted = {EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = &devices[number]}};
        channel_unblock(&devices[number].channel);
        epoll_ctl(poll, EPOLL_CTL_ADD, devices[number].channel.fd, &wanted);
    }
    unacked = unfinished = options.connections;
    double cpu_before_s = cpu_s();
    double start_s = monotonic_s();
    while (unfinished) {
        int count = epoll_wait(poll, events, 256, SILENCE_MS);
        if (count == 0) die("nothing happened for %d ms", SILENCE_MS);
        for (int number = 0; number < count; number++) {
            receive_on(events[number].data.ptr, image, start_s);
            send_on(events[number].data.ptr, image);
        }
    }
    double finished_s = monotonic_s() - start_s;
    size_t all = (size_t)options.connections;
    printf("{\"acked_s\": %.6f, \"finished_s\": %.6f, \"bytes\": %zu, \"frames\": %zu, \"acks\": %lu, "
           "\"cpu_s\": %.6f}\n",
           acked_s, finished_s, all * image->data_bytes, all * image->count, acks, cpu_s() - cpu_before_s);
}

static void parse_options(int count, char **arguments) {
    enum { PORT = 1, CONNECTIONS, BYTES, CHUNK_BYTES, KIND, WINDOW, OVERHEAD, PREAMBLE, FINISHES, PAYLOAD, FRAMES };
    static const struct option known[] = {
        {"port", 1, NULL, PORT},         {"connections", 1, NULL, CONNECTIONS}, {"bytes", 1, NULL, BYTES},
        {"chunk", 1, NULL, CHUNK_BYTES}, {"kind", 1, NULL, KIND},               {"window", 1, NULL, WINDOW},
        {"preamble", 1, NULL, PREAMBLE}, {"finish", 1, NULL, FINISHES},         {"payload", 1, NULL, PAYLOAD},
        {"frames", 1, NULL, FRAMES},     {"overhead", 1, NULL, OVERHEAD},
        {"tls", 0, &options.tls, 1},     {"no-handshake", 0, &options.no_handshake, 1},
        {0}};
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
            case PORT: options.port = atoi(optarg); break;
            case CONNECTIONS: options.connections = atoi(optarg); break;
            case BYTES: options.content.bytes = strtoull(optarg, NULL, 10); break;
            case CHUNK_BYTES: options.content.chunk = strtoull(optarg, NULL, 10); break;
            case KIND: options.content.kind = chunk_type(optarg); break;
            case WINDOW: options.window = strtoull(optarg, NULL, 10); break;
            case OVERHEAD: options.overhead = strtoull(optarg, NULL, 10); break;
            case PREAMBLE: options.preamble = optarg; break;
            case FINISHES: options.finish = optarg; break;
            case PAYLOAD: options.content.payload = optarg; break;
            case FRAMES: options.content.frames = optarg; break;
            case '?': exit(2);
        }
    }
    const struct content *content = &options.content;
    if (!options.port || !content->bytes || !content->chunk || !content->payload || !options.finish ||
        options.connections < 1 || (options.no_handshake ? !options.window : !options.preamble))
        die("usage: see the head of send.c");
}

int main(int count, char **arguments) {
    parse_options(count, arguments);
    struct image image = make_image(&options.content);
    struct device *devices = calloc((size_t)options.connections, sizeof *devices);
    struct record finishes = mapped(options.finish), preambles = {0};
    if (!options.no_handshake) preambles = mapped(options.preamble);
    SSL_CTX *tls = options.tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    for (struct device *device = devices; device < devices + options.connections; device++) {
        connect_device(device, tls);
        device->finish = next_record(&finishes, options.finish);
        if (!options.no_handshake) greet(device, next_record(&preambles, options.preamble));
    }
    stream(devices, &image);
    return 0;
}

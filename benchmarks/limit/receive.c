// The limit of receiving: the least work that keeps the daemon's promise for the same frames.
//
//   receive --port P --connections N --dir DIR --chunk BYTES --bytes BYTES --kind sum8|crc32c
//           --cycle-bytes BYTES --cycle-ms MS [--sha256] [--certificate PEM --key PEM]
//
// Receives N files of BYTES each over N connections, without a handshake. It verifies every chunk's checksum and keeps
// the CRC32C of each file. It writes the data past the page cache if the kernel can, else it starts write-back after
// each MiB. It syncs as often as the daemon (in cycles bounded by bytes and time, including the directory of new files)
// and then acknowledges. It answers FINISH once everything is durable and, with --sha256 (one connection only), the
// digest matches that in FINISH. Receiving, writing, hashing and syncing overlap. When all files are complete it prints
// {"cpu_s", "syncs", "sync_p99_ms"}.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <sys/epoll.h>

#include "channel.h"
#include "store.h"
#include "wire.h"

enum { SILENCE_S = 120, LISTEN_BACKLOG = 1024 };

struct connection {
    struct channel channel;
    struct file *file;
    struct slot *slot;
    enum { RECEIVING, FINISHING, COMPLETE } state;
    int has_more;  // OpenSSL may hold decrypted bytes for which the socket signals no event
    uint8_t digest[sizeof store.digest];  // from FINISH
};

static struct options {
    int port, connections, sha256;
    size_t bytes, chunk, cycle_bytes;
    double cycle_s;
    enum frame_type kind;
    const char *dir, *certificate, *key;
} options = {.connections = 1, .kind = CHUNK_CRC32C};

static struct crc32c_shift chunk_shift;
static size_t slot_bytes, waiting_bytes;
static double first_s;  // when the first of the waiting bytes arrived
static double cpu_before_s;
static int is_syncing, is_urgent, accepted, finished;
static struct connection *connections;

static void begin_cycle(void) {
    is_syncing = 1;
    is_urgent = 0;
    waiting_bytes = 0;
    for (struct file *file = store.files; file < store.files + store.file_count; file++) file->cut = file->received;
    put(&store.to_write, &store.sync_mark);
}

static double due_in_s(void) {
    if (is_syncing || !waiting_bytes) return SILENCE_S;
    return is_urgent || waiting_bytes >= options.cycle_bytes ? 0 : first_s + options.cycle_s - monotonic_s();
}

static void answer(struct connection *connection, enum frame_type type, const uint8_t *body, size_t body_bytes) {
    uint8_t frame[FINISHED_FRAME];
    store_prefix(frame, type, (uint32_t)body_bytes);
    memcpy(frame + PREFIX, body, body_bytes);
    if (channel_write(&connection->channel, frame, PREFIX + body_bytes) != (ssize_t)(PREFIX + body_bytes))
        die("the sender does not read");
}

static void finish_if_complete(struct connection *connection) {
    struct file *file = connection->file;
    if (connection->state != FINISHING || file->durable < options.bytes) return;
    if (options.sha256) {
        if (!atomic_load(&store.is_hashed)) return;
        if (memcmp(connection->digest, store.digest, sizeof store.digest)) die("SHA-256 differs from that in FINISH");
    }
    connection->state = COMPLETE;
    finished++;
    uint8_t body[FINISHED_FRAME - PREFIX] = {0};
    store64(body + 8, options.bytes);
    store32(body + 16, file->crc);
    answer(connection, FINISHED, body, sizeof body);
}

static void end_cycle(void) {
    is_syncing = 0;
    for (int number = 0; number < accepted; number++) {
        struct file *file = connections[number].file;
        if (file->cut == file->durable) continue;
        file->durable = file->cut;
        uint8_t next_expected_byte[8];
        store64(next_expected_byte, file->durable);
        if (file->durable < options.bytes || connections[number].state == RECEIVING)
            answer(&connections[number], ACK, next_expected_byte, sizeof next_expected_byte);
    }
}

static void wake_up(void) {
    eventfd_t count;
    eventfd_read(store.wake_event, &count);
    if (atomic_exchange(&store.is_synced, 0)) end_cycle();
}

static void take_finish(struct connection *connection, const uint8_t *frame, size_t bytes) {
    if (load64(frame + PREFIX) != options.bytes || connection->file->received != options.bytes) die("FINISH too early");
    connection->state = FINISHING;
    is_urgent = 1;  // like the daemon, do not let a finished sender wait for the end of the cycle
    for (const uint8_t *field = frame + PREFIX + 8; field < frame + bytes; field += 3 + (field[1] << 8 | field[2]))
        if (field[0] == TLV_SHA256) memcpy(connection->digest, field + 3, sizeof connection->digest);
}

// Verifies one chunk and adds its data to the slot's pieces.
static void take_chunk(struct file *file, struct slot *slot, uint8_t *frame, size_t bytes) {
    size_t header = header_bytes(options.kind), data_bytes = bytes - header;
    uint8_t *data = frame + header;
    uint64_t start = load64(frame + PREFIX);
    if (bytes <= header || start != file->received || load64(frame + PREFIX + 8) != start + data_bytes - 1)
        die("chunk at %lu does not follow %lu", start, file->received);
    if (data_bytes != chunk_shift.bytes) crc32c_shift_by(&chunk_shift, data_bytes);
    uint32_t crc = crc32c(0, data, data_bytes);
    int intact = options.kind == CHUNK
                     ? sum8(data, data_bytes) == frame[PREFIX + 16]
                     : crc32c_joined(crc32c(0, frame, CRC_COVERED), crc, &chunk_shift) == load32(frame + CRC_COVERED);
    if (!intact) die("chunk at %lu is corrupt", start);
    file->crc = crc32c_joined(file->crc, crc, &chunk_shift);
    file->received += data_bytes;
    if (!waiting_bytes) first_s = monotonic_s();
    waiting_bytes += data_bytes;
    if (slot->piece_count == PIECES_MAX) die("more than %d chunks in a slot", PIECES_MAX);
    slot->pieces[slot->piece_count++] = (struct iovec){data, data_bytes};
    slot->piece_bytes += data_bytes;
}

// Hands on the complete frames of the slot. The start of an incomplete frame moves to a new slot.
static void take_frames(struct connection *connection) {
    struct slot *slot = connection->slot;
    struct file *file = connection->file;
    uint64_t offset = file->received;
    size_t at = 0;
    while (slot->filled - at >= PREFIX) {
        uint8_t *frame = slot->data + at;
        size_t bytes = PREFIX + (size_t)load32(frame + 4);
        if (bytes > slot_bytes) die("frame 0x%02x of %zu bytes", frame[0], bytes);
        if (slot->filled - at < bytes) break;
        if (frame[0] == FINISH)
            take_finish(connection, frame, bytes);
        else if (frame[0] == options.kind)
            take_chunk(file, slot, frame, bytes);
        else
            die("frame 0x%02x is unexpected", frame[0]);
        at += bytes;
    }
    if (!at) return;
    size_t rest = slot->filled - at;
    connection->slot = rest ? take_last(&store.idle) : NULL;
    if (rest) {
        memcpy(connection->slot->data, slot->data + at, rest);
        connection->slot->filled = rest;
    }
    if (slot->piece_count) {
        hand_over(slot, file, offset);
    } else {
        slot->users = 1;
        done_with(slot);
    }
}

static void receive_on(struct connection *connection) {
    if (!connection->slot) connection->slot = take_last(&store.idle);
    struct slot *slot = connection->slot;
    ssize_t count;
    do {
        count = channel_read(&connection->channel, slot->data + slot->filled, slot_bytes - slot->filled);
        if (count < 0) die("the sender ended a connection");
        if (count == 0) break;
        slot->filled += (size_t)count;
    } while (connection->channel.ssl && slot->filled < slot_bytes);  // SSL_read returns at most one record
    connection->has_more = connection->channel.ssl && count > 0;
    take_frames(connection);
}

// A connection that closes without a byte only probed whether the port is open.
static void accept_on(int listener, int poll, SSL_CTX *tls) {
    uint8_t byte;
    struct channel channel = {accept(listener, NULL, NULL), NULL};
    if (channel.fd < 0) die("accept: %s", strerror(errno));
    if (recv(channel.fd, &byte, 1, MSG_PEEK) != 1) {
        close(channel.fd);
        return;
    }
    if (accepted == options.connections) die("more connections than %d", options.connections);
    if (!accepted) cpu_before_s = cpu_s();
    channel_prepare(&channel);
    if (tls) channel_secure(&channel, tls, 1);
    channel_unblock(&channel);
    struct connection *connection = &connections[accepted];
    *connection = (struct connection){.channel = channel, .file = &store.files[accepted], .has_more = !!tls};
    char name[32];
    snprintf(name, sizeof name, "%d", accepted++);
    connection->file->fd = openat(store.directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (connection->file->fd < 0) die("%s: %s", name, strerror(errno));
    connection->file->is_new = 1;
    struct epoll_event wanted = {EPOLLIN, {.ptr = connection}};
    epoll_ctl(poll, EPOLL_CTL_ADD, channel.fd, &wanted);
}

static void receive(int listener, int poll, SSL_CTX *tls) {
    struct epoll_event events[256];
    for (int has_more = 0; finished < options.connections;) {
        double due_s = has_more ? 0 : due_in_s();
        if (due_s < 0) due_s = 0;
        struct timespec timeout = {(time_t)due_s, (long)((due_s - (double)(time_t)due_s) * 1e9)};
        int count = epoll_pwait2(poll, events, 256, &timeout, NULL);
        if (count == 0 && timeout.tv_sec == SILENCE_S && !is_syncing) die("received nothing for %d s", SILENCE_S);
        for (int number = 0; number < count; number++) {
            void *source = events[number].data.ptr;
            if (source == &options) accept_on(listener, poll, tls);
            else if (source == &store) wake_up();
            else receive_on(source);
        }
        has_more = 0;
        for (struct connection *each = connections; each < connections + accepted; each++) {
            if (each->has_more) receive_on(each);
            has_more |= each->has_more;
            finish_if_complete(each);
        }
        if (due_in_s() <= 0) begin_cycle();
    }
}

static int listening(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, LISTEN_BACKLOG))
        die("port %d: %s", options.port, strerror(errno));
    return fd;
}

static SSL_CTX *tls_context(void) {
    if (!options.certificate) return NULL;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, options.certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM) != 1)
        die("%s: %s", options.certificate, ERR_error_string(ERR_get_error(), NULL));
    return context;
}

static void parse_options(int count, char **arguments) {
    enum { PORT = 1, CONNECTIONS, DIRECTORY, CHUNK_BYTES, BYTES, KIND, CYCLE_BYTES, CYCLE_MS, CERTIFICATE, KEY };
    static const struct option known[] = {
        {"port", 1, NULL, PORT},          {"connections", 1, NULL, CONNECTIONS}, {"dir", 1, NULL, DIRECTORY},
        {"chunk", 1, NULL, CHUNK_BYTES},  {"bytes", 1, NULL, BYTES},             {"kind", 1, NULL, KIND},
        {"cycle-ms", 1, NULL, CYCLE_MS},  {"cycle-bytes", 1, NULL, CYCLE_BYTES}, {"key", 1, NULL, KEY},
        {"certificate", 1, NULL, CERTIFICATE}, {"sha256", 0, &options.sha256, 1}, {0}};
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
            case PORT: options.port = atoi(optarg); break;
            case CONNECTIONS: options.connections = atoi(optarg); break;
            case DIRECTORY: options.dir = optarg; break;
            case CHUNK_BYTES: options.chunk = strtoull(optarg, NULL, 10); break;
            case BYTES: options.bytes = strtoull(optarg, NULL, 10); break;
            case KIND: options.kind = chunk_type(optarg); break;
            case CYCLE_BYTES: options.cycle_bytes = strtoull(optarg, NULL, 10); break;
            case CYCLE_MS: options.cycle_s = strtod(optarg, NULL) / 1e3; break;
            case CERTIFICATE: options.certificate = optarg; break;
            case KEY: options.key = optarg; break;
            case '?': exit(2);
        }
    }
    if (!options.port || !options.dir || !options.chunk || !options.bytes || options.connections < 1 ||
        (options.sha256 && options.connections > 1))
        die("usage: see the head of receive.c");
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

int main(int count, char **arguments) {
    parse_options(count, arguments);
    size_t frame_bytes = options.chunk + header_bytes(options.kind);
    size_t frames = SLOT_BYTES / frame_bytes < PIECES_MAX ? SLOT_BYTES / frame_bytes : PIECES_MAX;
    slot_bytes = frame_bytes * (frames ? frames : 1);
    crc32c_prepare();
    crc32c_shift_by(&chunk_shift, options.chunk);
    connections = calloc((size_t)options.connections, sizeof *connections);
    start_store(options.dir, options.connections, slot_bytes, options.sha256 ? options.bytes : 0);
    int poll = epoll_create1(0), listener = listening();
    struct epoll_event incoming = {EPOLLIN, {.ptr = &options}}, wakeups = {EPOLLIN, {.ptr = &store}};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &incoming);
    epoll_ctl(poll, EPOLL_CTL_ADD, store.wake_event, &wakeups);
    receive(listener, poll, tls_context());
    for (struct connection *each = connections; each < connections + accepted; each++) channel_close(&each->channel);
    qsort(store.sync_s, store.syncs, sizeof *store.sync_s, by_size);
    printf("{\"cpu_s\": %.6f, \"syncs\": %zu, \"sync_p99_ms\": %.3f}\n", cpu_s() - cpu_before_s, store.syncs,
           store.sync_s[store.syncs * 99 / 100] * 1e3);
    return 0;
}

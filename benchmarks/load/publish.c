/* Plays clients that publish to a broker by MQTT 3.1.1 at QoS 1 or NATS JetStream, until every message is acknowledged.
 *
 *   publish --protocol mqtt|nats --port P --connections N --messages PER_CONNECTION --payload BYTES --window MESSAGES
 *
 * Each connection's messages are prepared in a ring, so the measurement covers only writes, reads and counting acks.
 * Prints one line of JSON: acked_s (from the first byte sent to the last ack), messages, bytes (payload), cpu_s (its
 * own). Exits with 1 and a message when the broker refuses anything.
 */
#define _GNU_SOURCE /* memmem */
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#include "dialect.h"

enum {
    RING_MESSAGES_MAX = 65535, /* the number of packet identifiers in MQTT, where 0 is not allowed */
    SILENCE_MS = 60 * 1000,    /* transmit up when the broker sends nothing for this long: it has lost a message */
    READY_MAX = 64,
};

static struct {
    const struct dialect *dialect;
    int port, connections;
    long messages, window;
    size_t payload_bytes;
} plan = {.connections = 1, .messages = 1, .window = 1, .payload_bytes = 1024};

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void prepare(struct client *client)
{
    long count = plan.messages < RING_MESSAGES_MAX ? plan.messages : RING_MESSAGES_MAX;
    size_t room = (size_t)count * (FRAMING_BYTES_MAX + plan.payload_bytes), at = 0;
    size_t tail_bytes = strlen(plan.dialect->tail);
    uint64_t random = 0x9e3779b97f4a7c15u * (uint64_t)(client->number + 1);
    client->ring = malloc(room);
    if (!client->ring)
        die("no memory for %zu bytes of messages", room);
    for (long index = 0; index < count; index++) {
        at += plan.dialect->head(client, index, plan.payload_bytes, client->ring + at);
        for (size_t byte = 0; byte < plan.payload_bytes; byte++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            client->ring[at++] = (char)random;
        }
        memcpy(client->ring + at, plan.dialect->tail, tail_bytes);
        at += tail_bytes;
    }
    client->ring_bytes = at;
    client->message_bytes = at / (size_t)count;
}

static void receive(struct client *client)
{
    for (;;) {
        ssize_t count = read(client->fd, client->input + client->held, INPUT_BYTES - client->held);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count <= 0)
            die("client %d: closed after %ld acks: %s", client->number, client->acked, count ? strerror(errno) : "end");
        client->held += (size_t)count;
        client->acked += plan.dialect->acks(client);
    }
}

static void transmit(struct client *client)
{
    for (;;) {
        size_t into = client->sent_bytes % client->message_bytes;
        if (client->pongs && !into && write(client->fd, "PONG\r\n", 6) == 6)
            client->pongs--;
        long may = client->acked + plan.window < plan.messages ? client->acked + plan.window : plan.messages;
        size_t until = (size_t)may * client->message_bytes;
        if (client->pongs && into) /* PONG must go between two messages */
            until = client->sent_bytes - into + client->message_bytes;
        size_t from = client->sent_bytes % client->ring_bytes, left = until - client->sent_bytes;
        size_t whole = client->ring_bytes - from < left ? client->ring_bytes - from : left;
        if (!whole)
            return;
        ssize_t count = write(client->fd, client->ring + from, whole);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0)
            die("client %d: cannot write: %s", client->number, strerror(errno));
        client->sent_bytes += (size_t)count;
    }
}

static void connect_client(int number, int poll)
{
    struct client *client = calloc(1, sizeof *client);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plan.port)};
    struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    int on = 1;
    if (!client)
        die("no memory for client %d", number);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->number = number;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof address))
        die("client %d: cannot connect to port %d: %s", number, plan.port, strerror(errno));
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    prepare(client);
    plan.dialect->greet(client);
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(poll, EPOLL_CTL_ADD, client->fd, &interest))
        die("client %d: epoll: %s", number, strerror(errno));
}

static void publish(int poll)
{
    struct epoll_event ready[READY_MAX];
    for (int busy = plan.connections; busy;) {
        int count = epoll_wait(poll, ready, READY_MAX, SILENCE_MS);
        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        if (count == 0)
            die("%d clients await acks, but none arrived for %d s", busy, SILENCE_MS / 1000);
        for (int index = 0; index < count; index++) {
            struct client *client = ready[index].data.ptr;
            bool was_busy = client->acked < plan.messages;
            receive(client);
            transmit(client);
            busy -= was_busy && client->acked == plan.messages;
        }
    }
}

static const struct dialect *dialect_named(const char *name)
{
    for (size_t index = 0; index < sizeof dialects / sizeof *dialects; index++)
        if (!strcmp(dialects[index].name, name))
            return &dialects[index];
    die("--protocol %s: must be mqtt or nats", name);
}

static void read_plan(int count, char **words)
{
    static const struct option options[] = {
        {"protocol", 1, 0, 't'}, {"port", 1, 0, 'p'},   {"connections", 1, 0, 'c'}, {"messages", 1, 0, 'm'},
        {"payload", 1, 0, 'b'},  {"window", 1, 0, 'w'}, {0, 0, 0, 0},
    };
    for (int option; (option = getopt_long(count, words, "", options, NULL)) != -1;) {
        long number = strtol(optarg ? optarg : "", NULL, 10);
        switch (option) {
        case 't': plan.dialect = dialect_named(optarg); break;
        case 'p': plan.port = (int)number; break;
        case 'c': plan.connections = (int)number; break;
        case 'm': plan.messages = number; break;
        case 'b': plan.payload_bytes = (size_t)number; break;
        case 'w': plan.window = number; break;
        default: die("usage: see the head of publish.c");
        }
    }
    if (!plan.dialect || plan.connections < 1 || plan.messages < 1)
        die("give --protocol, and at least 1 connection and 1 message");
    if (plan.window < 1 || plan.window > RING_MESSAGES_MAX)
        die("--window must be between 1 and %d", RING_MESSAGES_MAX);
}

int main(int count, char **words)
{
    struct rlimit files;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    read_plan(count, words);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int number = 0; number < plan.connections; number++)
        connect_client(number, poll);
    double began = seconds(CLOCK_MONOTONIC), worked = seconds(CLOCK_PROCESS_CPUTIME_ID);
    publish(poll);
    double acked_s = seconds(CLOCK_MONOTONIC) - began;
    long messages = plan.connections * plan.messages;
    printf("{\"acked_s\": %.6f, \"messages\": %ld, \"bytes\": %zu, \"cpu_s\": %.6f}\n", acked_s, messages,
           (size_t)messages * plan.payload_bytes, seconds(CLOCK_PROCESS_CPUTIME_ID) - worked);
    return 0;
}

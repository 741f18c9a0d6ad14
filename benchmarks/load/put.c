/* Sends one file to several targets of an HTTP server at once, over one connection each:
 *
 *     put METHOD PORT FILE [--authority PEM] [--header LINE]... TARGET...
 *
 * With --authority it uses TLS and trusts only that certificate. The clock runs from the first byte of the first
 * request to the last response, without connecting and TLS handshakes. Any response but 2xx is a failure. Prints
 * {"seconds":…,"bytes":…,"cpu_s":…}. The body comes from memory: the file is mapped and in the page cache. */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 64,
    HEAD_BYTES_MAX = 4096,
    /* Large enough that system calls cost little, small enough that a copy stays in the L2 cache. */
    WRITE_BYTES = 1 << 18,
};

static const char *method, *body, *authority;
static size_t body_bytes;
static in_port_t port;
static char headers[HEAD_BYTES_MAX / 2];
static SSL_CTX *tls;
static pthread_barrier_t ready;

struct connection {
    pthread_t thread;
    const char *target;
    int descriptor;
    SSL *ssl;
    double began, finished;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->descriptor < 0 || connect(connection->descriptor, (struct sockaddr *)&address, sizeof address))
        err(1, "connect to port %d", port);
    if (!tls)
        return;
    connection->ssl = SSL_new(tls);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, connection->descriptor) || SSL_connect(connection->ssl) != 1) {
        ERR_print_errors_fp(stderr);
        errx(1, "TLS handshake with port %d", port);
    }
}

/* Reads the response, also when sending failed, so that a refusal in the middle of the body is reported with its reason
 * and not as a broken pipe. */
static void check_answer(struct connection *connection) {
    char answer[HEAD_BYTES_MAX + 1];
    size_t length = 0;
    answer[0] = 0;
    while (!strstr(answer, "\r\n\r\n") && length < HEAD_BYTES_MAX) {
        ssize_t got = connection->ssl ? SSL_read(connection->ssl, answer + length, (int)(HEAD_BYTES_MAX - length))
                                      : read(connection->descriptor, answer + length, HEAD_BYTES_MAX - length);
        if (got <= 0)
            break;
        length += (size_t)got;
        answer[length] = 0;
    }
    if (strncmp(answer, "HTTP/1.1 2", 10) != 0)
        errx(1, "%s %s was answered: %.300s", method, connection->target, length ? answer : "nothing");
}

static void send_all(struct connection *connection, const char *bytes, size_t count) {
    while (count) {
        size_t part = count < WRITE_BYTES ? count : WRITE_BYTES;
        ssize_t sent = connection->ssl ? SSL_write(connection->ssl, bytes, (int)part)
                                       : write(connection->descriptor, bytes, part);
        if (sent <= 0) {
            check_answer(connection);
            errx(1, "%s %s: the server ended the connection before the body did", method, connection->target);
        }
        bytes += sent;
        count -= (size_t)sent;
    }
}

static void *send_one(void *argument) {
    struct connection *connection = argument;
    char head[HEAD_BYTES_MAX];
    int length = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n%s\r\n",
                          method, connection->target, body_bytes, headers);
    if (length >= (int)sizeof head)
        errx(1, "the head of the request to %s is longer than %zu bytes", connection->target, sizeof head);
    open_connection(connection);
    pthread_barrier_wait(&ready);
    connection->began = now();
    send_all(connection, head, (size_t)length);
    send_all(connection, body, body_bytes);
    check_answer(connection);
    connection->finished = now();
    return NULL;
}

static void map_body(const char *path) {
    struct stat file;
    int descriptor = open(path, O_RDONLY);
    if (descriptor < 0 || fstat(descriptor, &file))
        err(1, "%s", path);
    body_bytes = (size_t)file.st_size;
    if (!body_bytes)
        errx(1, "%s is empty", path);
    body = mmap(NULL, body_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    if (body == MAP_FAILED)
        err(1, "mmap %s", path);
}

static void prepare_tls(void) {
    tls = SSL_CTX_new(TLS_client_method());
    if (!tls || !SSL_CTX_load_verify_locations(tls, authority, NULL))
        errx(1, "%s is not a PEM certificate", authority);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
}

/* Reads the options. Returns the index of the first target. */
static int read_options(int count, char **arguments) {
    int next = 4;
    for (; next + 1 < count && !strncmp(arguments[next], "--", 2); next += 2) {
        const char *value = arguments[next + 1];
        if (!strcmp(arguments[next], "--authority")) {
            authority = value;
        } else if (!strcmp(arguments[next], "--header")) {
            size_t used = strlen(headers);
            if (snprintf(headers + used, sizeof headers - used, "%s\r\n", value) >= (int)(sizeof headers - used))
                errx(1, "more than %zu bytes of headers", sizeof headers);
        } else {
            errx(2, "unknown option %s", arguments[next]);
        }
    }
    return next;
}

int main(int count, char **arguments) {
    static struct connection connections[CONNECTIONS_MAX];
    int first = count > 4 ? read_options(count, arguments) : count;
    int targets = count - first;
    if (targets < 1 || targets > CONNECTIONS_MAX)
        errx(2, "usage: put METHOD PORT FILE [--authority PEM] [--header LINE]... TARGET... (at most %d)",
             CONNECTIONS_MAX);
    method = arguments[1];
    port = (in_port_t)atoi(arguments[2]);
    map_body(arguments[3]);
    if (authority)
        prepare_tls();
    /* When the server closes, a write must fail instead of raising a signal, so that its response can still be read. */
    signal(SIGPIPE, SIG_IGN);

    pthread_barrier_init(&ready, NULL, (unsigned)targets);
    for (int i = 0; i < targets; i++) {
        connections[i].target = arguments[first + i];
        if (pthread_create(&connections[i].thread, NULL, send_one, &connections[i]))
            errx(1, "cannot start a thread for connection %d", i);
    }
    double began = 0, finished = 0;
    for (int i = 0; i < targets; i++) {
        pthread_join(connections[i].thread, NULL);
        if (i == 0 || connections[i].began < began)
            began = connections[i].began;
        if (connections[i].finished > finished)
            finished = connections[i].finished;
    }

    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\":%.6f,\"bytes\":%zu,\"cpu_s\":%.3f}\n", finished - began, body_bytes * (size_t)targets, cpu_s);
    return 0;
}

/* How the two brokers' protocols differ: the handshake, the bytes around a payload, and the acks. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 64 * 1024, /* thousands of acks per read */
    FRAMING_BYTES_MAX = 64,  /* around a payload, in either protocol */
    LINE_BYTES_MAX = 4096,   /* the INFO of NATS is below 1 KiB */
};

struct client {
    int fd;
    int number;
    char *ring;
    size_t ring_bytes;
    size_t message_bytes;
    size_t sent_bytes;
    long acked;
    int pongs; /* PONGs to send to a NATS server */
    size_t held;
    char input[INPUT_BYTES];
};

/* `head` writes the bytes before a payload and returns their number, which is the same for every message of a client.
 * `tail` follows the payload. `acks` counts the complete acks in the input and moves the rest to its front. */
struct dialect {
    const char *name;
    void (*greet)(struct client *client);
    size_t (*head)(const struct client *client, long index, size_t payload_bytes, char *bytes);
    const char *tail;
    long (*acks)(struct client *client);
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "publish: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static void write_all(struct client *client, const char *bytes, size_t count)
{
    if (write(client->fd, bytes, count) != (ssize_t)count)
        die("client %d: cannot write the handshake: %s", client->number, strerror(errno));
}

static void read_all(struct client *client, char *bytes, size_t count)
{
    if (recv(client->fd, bytes, count, MSG_WAITALL) != (ssize_t)count)
        die("client %d: the broker closed during the handshake", client->number);
}

/* ---- MQTT 3.1.1, QoS 1 */

static void mqtt_greet(struct client *client)
{
    /* CONNECT: protocol level 4, clean session, no keep-alive; the client identifier is the number. */
    char packet[FRAMING_BYTES_MAX] = "\x10\0\0\x04MQTT\x04\x02\0\0\0", answer[4];
    int length = snprintf(packet + 14, sizeof packet - 14, "p%06d", client->number);
    packet[1] = (char)(12 + length);
    packet[13] = (char)length;
    write_all(client, packet, 14 + (size_t)length);
    read_all(client, answer, sizeof answer);
    if (answer[0] != 0x20 || answer[3] != 0)
        die("client %d: CONNACK %02x, return code %d", client->number, (uint8_t)answer[0], answer[3]);
}

static size_t mqtt_head(const struct client *client, long index, size_t payload_bytes, char *bytes)
{
    char topic[FRAMING_BYTES_MAX];
    size_t topic_bytes = (size_t)snprintf(topic, sizeof topic, "up/%06d", client->number);
    size_t left = 2 + topic_bytes + 2 + payload_bytes, at = 0;
    uint16_t topic_length = htons((uint16_t)topic_bytes), packet_id = htons((uint16_t)(index + 1));
    bytes[at++] = 0x32; /* PUBLISH at QoS 1 */
    for (; left > 0x7f; left >>= 7)
        bytes[at++] = (char)(left | 0x80);
    bytes[at++] = (char)left;
    memcpy(bytes + at, &topic_length, 2);
    memcpy(bytes + at + 2, topic, topic_bytes);
    memcpy(bytes + at + 2 + topic_bytes, &packet_id, 2);
    return at + 2 + topic_bytes + 2;
}

static long mqtt_acks(struct client *client)
{
    size_t at = 0;
    long acks = 0;
    for (; client->held - at >= 4; at += 4, acks++)
        if (client->input[at] != 0x40)
            die("client %d: packet %02x instead of PUBACK", client->number, (uint8_t)client->input[at]);
    memmove(client->input, client->input + at, client->held -= at);
    return acks;
}

/* ---- NATS: an ack is a message to the client's own inbox */

static void nats_greet(struct client *client)
{
    char greeting[256], line[LINE_BYTES_MAX];
    int length = snprintf(greeting, sizeof greeting,
                          "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB _INBOX.%06d 1\r\nPING\r\n",
                          client->number);
    write_all(client, greeting, (size_t)length);
    do {
        size_t held = 0;
        do
            read_all(client, line + held, 1);
        while (line[held++] != '\n' && held + 1 < sizeof line);
        line[held] = 0;
        if (!strncmp(line, "-ERR", 4))
            die("client %d: %s", client->number, line);
    } while (strncmp(line, "PONG", 4) != 0);
}

static size_t nats_head(const struct client *client, long index, size_t payload_bytes, char *bytes)
{
    (void)index; /* one inbox for all messages, since acks are only counted */
    return (size_t)snprintf(bytes, FRAMING_BYTES_MAX, "PUB up.%06d _INBOX.%06d %zu\r\n", client->number,
                            client->number, payload_bytes);
}

static long nats_acks(struct client *client)
{
    size_t at = 0;
    long acks = 0;
    for (char *end; (end = memchr(client->input + at, '\n', client->held - at));) {
        char *line = client->input + at;
        size_t next = (size_t)(end + 1 - client->input);
        if (!strncmp(line, "MSG ", 4)) {
            *end = 0; /* keeps strrchr and strtoul within the line */
            size_t body = strtoul(strrchr(line, ' '), NULL, 10);
            *end = '\n';
            if (client->held - next < body + 2)
                break;
            if (memmem(end, body, "\"error\"", 7))
                die("client %d: refused: %.*s", client->number, (int)body, end + 1);
            next += body + 2;
            acks++;
        } else if (!strncmp(line, "PING", 4)) {
            client->pongs++;
        } else {
            die("client %d: %.*s", client->number, (int)(end - line), line);
        }
        at = next;
    }
    memmove(client->input, client->input + at, client->held -= at);
    return acks;
}

static const struct dialect dialects[] = {
    {"mqtt", mqtt_greet, mqtt_head, "", mqtt_acks},
    {"nats", nats_greet, nats_head, "\r\n", nats_acks},
};

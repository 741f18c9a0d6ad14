/* A bad link between two network namespaces: a TUN device in each, and this program between them.
 *
 * link NAMESPACE NAMESPACE RATE_BITS_PER_S DELAY_US QUEUE_BYTES LOSS_PPM SEED CUT_EVERY_MS SILENCE_MS
 *
 * Both directions work alike: a tail-drop queue, the rate limit, loss, then the delay. Every CUT_EVERY_MS the link
 * drops all packets in flight, stays silent for SILENCE_MS, and prints "cut", so that the caller can kill connections.
 * Its clock starts with the first packet. It prints "up" once both devices exist.
 *
 * SEED decides which time slots lose their packets, each slot as long as one full packet. Links with the same seed lose
 * the same slots, whatever the traffic, so all contestants face the same losses.
 */
#define _GNU_SOURCE /* setns, ppoll */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1500, RING = 8192 }; /* RING: packets in flight at most, enough for a queue full of bare ACKs */

struct packet { int64_t due_us; ssize_t length; uint8_t bytes[MTU]; };

struct direction {
    int from, to;
    uint64_t seed;
    int64_t free_us; /* when the wire will have sent the whole queue */
    unsigned head, count;
    struct packet ring[RING];
};

static struct direction ways[2];
static int64_t rate, delay_us, queue_bytes, loss_ppm, cut_every_us, silence_us;
static int64_t began_us = -1, next_cut_us, silent_until_us;

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int tun(const char *namespace) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int target = open(path, O_RDONLY);
    if (target < 0 || setns(target, CLONE_NEWNET)) fail(path);
    close(target);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_name = "link0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (device < 0 || ioctl(device, TUNSETIFF, &request)) fail("/dev/net/tun");
    return device;
}

static uint64_t mixed(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int lost(const struct direction *way) {
    uint64_t slot_us = MTU * 8 * 1000000LL / rate;
    uint64_t slot = (uint64_t)(way->free_us - began_us) / slot_us;
    return mixed(way->seed ^ mixed(slot)) % 1000000 < (uint64_t)loss_ppm;
}

static void enqueue(struct direction *way) {
    for (;;) {
        struct packet *packet = &way->ring[(way->head + way->count) % RING];
        packet->length = read(way->from, packet->bytes, MTU);
        if (packet->length <= 0) return;
        if (packet->bytes[0] >> 4 != 4) continue; /* ignore IPv6 router solicitations */
        int64_t now = now_us();
        if (began_us < 0) began_us = now, next_cut_us = now + cut_every_us;
        if (now < silent_until_us) continue;
        if (way->free_us < now) way->free_us = now;
        int64_t waiting_bytes = (way->free_us - now) * rate / 8000000;
        if (waiting_bytes + packet->length > queue_bytes || way->count == RING - 1) continue;
        way->free_us += packet->length * 8000000 / rate;
        packet->due_us = way->free_us + delay_us;
        if (!lost(way)) way->count++;
    }
}

static void deliver(struct direction *way, int64_t now) {
    for (; way->count && way->ring[way->head].due_us <= now; way->count--) {
        struct packet *packet = &way->ring[way->head];
        if (write(way->to, packet->bytes, (size_t)packet->length) < 0) perror("the link's other end");
        way->head = (way->head + 1) % RING;
    }
}

static void cut(int64_t now) {
    if (began_us >= 0 && cut_every_us && now >= next_cut_us) {
        for (int i = 0; i < 2; i++) ways[i].count = 0, ways[i].free_us = now;
        silent_until_us = next_cut_us + silence_us;
        next_cut_us += cut_every_us;
    }
    if (silent_until_us && now >= silent_until_us) {
        silent_until_us = 0;
        puts("cut");
    }
}

static int64_t next_us(void) {
    int64_t next = INT64_MAX;
    if (began_us >= 0 && cut_every_us) next = next_cut_us;
    if (silent_until_us && silent_until_us < next) next = silent_until_us;
    for (int i = 0; i < 2; i++)
        if (ways[i].count && ways[i].ring[ways[i].head].due_us < next) next = ways[i].ring[ways[i].head].due_us;
    return next;
}

int main(int argc, char **argv) {
    if (argc != 10) return fprintf(stderr, "link: wrong number of arguments, see the head of link.c\n"), 2;
    rate = atoll(argv[3]), delay_us = atoll(argv[4]), queue_bytes = atoll(argv[5]), loss_ppm = atoll(argv[6]);
    cut_every_us = atoll(argv[8]) * 1000, silence_us = atoll(argv[9]) * 1000;
    setvbuf(stdout, NULL, _IOLBF, 0);
    int ends[2] = {tun(argv[1]), tun(argv[2])};
    for (int i = 0; i < 2; i++) {
        ways[i].from = ends[i], ways[i].to = ends[!i];
        ways[i].seed = mixed((uint64_t)atoll(argv[7]) * 2 + (uint64_t)i);
    }
    puts("up");
    for (;;) {
        int64_t next = next_us(), wait = next == INT64_MAX ? 1000000 : next - now_us();
        if (wait < 0) wait = 0;
        struct timespec timeout = {wait / 1000000, wait % 1000000 * 1000};
        struct pollfd polled[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}};
        if (ppoll(polled, 2, &timeout, NULL) < 0) fail("ppoll");
        cut(now_us());
        for (int i = 0; i < 2; i++) {
            enqueue(&ways[i]);
            deliver(&ways[i], now_us());
        }
    }
}

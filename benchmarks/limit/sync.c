// The least time until an append is durable: 4 KiB written to a file, then fdatasync, with nothing else running.
//
//   sync FILE SECONDS        creates and removes FILE; prints one line of JSON

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { APPENDED_BYTES = 4096, SYNCS_MAX = 1 << 20 };

static double latency_ms[SYNCS_MAX];

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int count, char **words) {
    static const uint8_t data[APPENDED_BYTES] = {1};
    int file = count == 3 ? open(words[1], O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0600) : -1;
    if (file < 0) {
        perror("sync FILE SECONDS");
        return 1;
    }
    double until = now_ms() + atof(words[2]) * 1e3;
    size_t syncs = 0;
    for (double began = now_ms(); began < until && syncs < SYNCS_MAX;) {
        if (write(file, data, sizeof data) != sizeof data || fdatasync(file)) {
            perror(words[1]);
            return 1;
        }
        double ended = now_ms();
        latency_ms[syncs++] = ended - began;
        began = ended;
    }
    unlink(words[1]);
    qsort(latency_ms, syncs, sizeof *latency_ms, ascending);
    printf("{\"syncs\": %zu, \"p50_ms\": %.6f, \"p99_ms\": %.6f}\n", syncs, latency_ms[(syncs - 1) / 2],
           latency_ms[(syncs * 99 + 99) / 100 - 1]);
    return 0;
}

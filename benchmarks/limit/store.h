// Writes, hashes and syncs the received data, each on its own thread.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include "channel.h"

enum {
    // Four chunks of 256 KiB, as in the daemon: a tenth faster than one, and eight are no faster.
    SLOT_BYTES = (1 << 20) + 4096,
    SLOTS_BESIDE = 64,              // slots that await writing or hashing, besides a partly filled one per connection
    QUEUE_ENTRIES = 4096,           // more than there are slots
    TOGETHER_FILES_MIN = 16,        // from here on, one syncfs is faster than a sync per file; as in the daemon
    AHEAD_BYTES = 1 << 20,          // start write-back after this much of a file, before the sync
    THROUGH_BYTES_MIN = 64 * 1024,  // writes from this size on bypass the page cache; as in the daemon
    DONTCACHE = 0x80,               // RWF_DONTCACHE, new in Linux 6.14 and reliable since 6.16
    PIECES_MAX = 1024,              // IOV_MAX
};

struct file {
    int fd, is_new;
    uint64_t received, durable, cut, started;
    uint32_t crc;
};

// A buffer of frames, and the pieces of it that are file data. In the marker that requests a sync, `file` is NULL.
struct slot {
    struct file *file;
    uint8_t *data;
    size_t filled, piece_count, piece_bytes;
    uint64_t offset;
    atomic_int users;
    struct iovec pieces[PIECES_MAX];
};

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    struct slot *entries[QUEUE_ENTRIES];
    size_t first, last;
};

#define QUEUE {.mutex = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER}

static struct store {
    struct queue to_write, to_hash, to_sync, idle;
    struct slot sync_mark;
    struct file *files;
    int file_count, directory, wake_event, writes_through;
    uint64_t hash_bytes;  // size of the file to hash with SHA-256, or 0
    uint8_t digest[32];
    atomic_int is_hashed, is_synced;
    size_t syncs, sync_s_capacity;
    double *sync_s;
} store = {.to_write = QUEUE, .to_hash = QUEUE, .to_sync = QUEUE, .idle = QUEUE};

static inline int kernel_is_at_least(int major, int minor) {
    struct utsname name;
    int found_major = 0, found_minor = 0;
    if (uname(&name) || sscanf(name.release, "%d.%d", &found_major, &found_minor) != 2) return 0;
    return found_major > major || (found_major == major && found_minor >= minor);
}

static inline void put(struct queue *queue, struct slot *slot) {
    pthread_mutex_lock(&queue->mutex);
    queue->entries[queue->last++ % QUEUE_ENTRIES] = slot;
    if (queue->last - queue->first == 1) pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->mutex);
}

static inline void wait_for_one(struct queue *queue) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->first == queue->last) pthread_cond_wait(&queue->filled, &queue->mutex);
}

static inline struct slot *take(struct queue *queue) {
    wait_for_one(queue);
    struct slot *slot = queue->entries[queue->first++ % QUEUE_ENTRIES];
    pthread_mutex_unlock(&queue->mutex);
    return slot;
}

// The slot that was put last, because its memory is most likely in the CPU's cache.
static inline struct slot *take_last(struct queue *queue) {
    wait_for_one(queue);
    struct slot *slot = queue->entries[--queue->last % QUEUE_ENTRIES];
    pthread_mutex_unlock(&queue->mutex);
    slot->filled = slot->piece_count = slot->piece_bytes = 0;
    return slot;
}

static inline void done_with(struct slot *slot) {
    if (atomic_fetch_sub(&slot->users, 1) == 1) put(&store.idle, slot);
}

static inline void wake_receiver(void) {
    if (eventfd_write(store.wake_event, 1)) die("eventfd: %s", strerror(errno));
}

static inline void write_pieces(struct file *file, struct iovec *pieces, size_t count, size_t bytes, uint64_t offset,
                                int flags) {
    ssize_t written = pwritev2(file->fd, pieces, (int)count, (off_t)offset, flags);
    if (written < 0 && flags && errno == EOPNOTSUPP) {
        store.writes_through = 0;
        written = pwritev2(file->fd, pieces, (int)count, (off_t)offset, 0);
    }
    if (written != (ssize_t)bytes) die("pwritev2 wrote %zd: %s", written, strerror(errno));
}

// Full pages bypass the page cache. A partly filled last page stays in it until the rest arrives.
static inline void write_slot(struct slot *slot) {
    struct file *file = slot->file;
    uint64_t end = slot->offset + slot->piece_bytes, page_end = end & ~4095ull;
    size_t last = slot->piece_count, tail = (size_t)(end - page_end);
    if (!store.writes_through || page_end < slot->offset + THROUGH_BYTES_MIN) {
        write_pieces(file, slot->pieces, slot->piece_count, slot->piece_bytes, slot->offset, 0);
        // Full pages only, because a page that is written again would go to the disk twice.
        if (page_end >= file->started + AHEAD_BYTES) {
            if (sync_file_range(file->fd, (off_t)file->started, (off_t)(page_end - file->started),
                                SYNC_FILE_RANGE_WRITE))
                die("sync_file_range: %s", strerror(errno));
            file->started = page_end;
        }
    } else {
        struct iovec pieces[PIECES_MAX];  // a copy, because the hash thread reads those of the slot
        memcpy(pieces, slot->pieces, slot->piece_count * sizeof *pieces);
        size_t left = tail;
        while (left && pieces[last - 1].iov_len <= left) left -= pieces[--last].iov_len;
        struct iovec *cut = &pieces[left ? last - 1 : last];
        if (left) cut->iov_len -= left;
        write_pieces(file, pieces, last, slot->piece_bytes - tail, slot->offset, DONTCACHE);
        if (left) *cut = (struct iovec){(uint8_t *)cut->iov_base + cut->iov_len, left};
        if (tail) write_pieces(file, cut, slot->piece_count - (size_t)(cut - pieces), tail, page_end, 0);
        file->started = page_end;
    }
    done_with(slot);
}

static void *run_writes(void *unused) {
    for (;;) {
        struct slot *slot = take(&store.to_write);
        if (slot->file)
            write_slot(slot);
        else
            put(&store.to_sync, slot);
    }
    return unused;
}

static void *run_hash(void *unused) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    for (uint64_t hashed = 0; hashed < store.hash_bytes;) {
        struct slot *slot = take(&store.to_hash);
        for (size_t piece = 0; piece < slot->piece_count; piece++)
            EVP_DigestUpdate(context, slot->pieces[piece].iov_base, slot->pieces[piece].iov_len);
        hashed += slot->piece_bytes;
        done_with(slot);
    }
    EVP_DigestFinal_ex(context, store.digest, NULL);
    EVP_MD_CTX_free(context);
    atomic_store(&store.is_hashed, 1);
    wake_receiver();
    return unused;
}

static inline void sync_timed(int fd, int (*sync)(int)) {
    double start_s = monotonic_s();
    if (sync(fd)) die("sync: %s", strerror(errno));
    if (store.syncs == store.sync_s_capacity) {
        store.sync_s_capacity = 2 * store.sync_s_capacity + 1024;
        store.sync_s = realloc(store.sync_s, store.sync_s_capacity * sizeof *store.sync_s);
    }
    store.sync_s[store.syncs++] = monotonic_s() - start_s;
}

static void *run_syncs(void *unused) {
    for (;;) {
        take(&store.to_sync);
        int has_new = 0, dirty = 0;
        for (struct file *file = store.files; file < store.files + store.file_count; file++)
            dirty += file->cut != file->durable;
        if (dirty >= TOGETHER_FILES_MIN) {
            sync_timed(store.directory, syncfs);
            for (struct file *file = store.files; file < store.files + store.file_count; file++)
                if (file->cut != file->durable) file->is_new = 0;
            dirty = 0;
        }
        for (struct file *file = store.files; dirty && file < store.files + store.file_count; file++) {
            if (file->cut == file->durable) continue;
            sync_timed(file->fd, fdatasync);
            has_new |= file->is_new;
            file->is_new = 0;
        }
        if (has_new && fsync(store.directory)) die("fsync of the directory: %s", strerror(errno));
        atomic_store(&store.is_synced, 1);
        wake_receiver();
    }
    return unused;
}

static inline void start_thread(void *(*run)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL)) die("cannot start a thread");
}

// `hash_bytes` is the size of the one file to hash with SHA-256, or 0.
static inline void start_store(const char *directory, int file_count, size_t slot_bytes, uint64_t hash_bytes) {
    store.files = calloc((size_t)file_count, sizeof *store.files);
    store.file_count = file_count;
    store.hash_bytes = hash_bytes;
    store.wake_event = eventfd(0, EFD_CLOEXEC);
    store.writes_through = kernel_is_at_least(6, 16);
    store.directory = open(directory, O_RDONLY | O_DIRECTORY);
    if (store.directory < 0) die("%s: %s", directory, strerror(errno));
    int slots = file_count + SLOTS_BESIDE;
    if (slots > QUEUE_ENTRIES) die("%d connections are too many", file_count);
    struct slot *all = calloc((size_t)slots, sizeof *all);
    size_t room = (slot_bytes + 63) / 64 * 64;
    uint8_t *data = mmap(NULL, (size_t)slots * room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!all || data == MAP_FAILED) die("no memory for %d slots", slots);
    madvise(data, (size_t)slots * room, MADV_HUGEPAGE);
    memset(data, 0, (size_t)slots * room);  // fault the pages in now, as in a server that has run for a while
    for (int number = 0; number < slots; number++, data += room) {
        all[number].data = data;
        put(&store.idle, &all[number]);
    }
    start_thread(run_writes);
    start_thread(run_syncs);
    if (hash_bytes) start_thread(run_hash);
}

// Queues the slot's pieces for `file`, starting at `offset`.
static inline void hand_over(struct slot *slot, struct file *file, uint64_t offset) {
    slot->file = file;
    slot->offset = offset;
    slot->users = store.hash_bytes ? 2 : 1;
    put(&store.to_write, slot);
    if (store.hash_bytes) put(&store.to_hash, slot);
}

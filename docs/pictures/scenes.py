"""What the pictures show. Frames and their fields are those of PROTOCOL.md."""

from docs.pictures.ladder import Break, Message, Note, draw

_DEVICE, _DAEMON, _DISK = range(3)
_THREE = ("device", "uplinkd", "disk")

_UPLOAD = draw(
    "One upload over a link that breaks",
    _THREE,
    [
        Message(_DEVICE, _DAEMON, "HELLO, OPEN clip.bin"),
        Message(_DAEMON, _DEVICE, "WELCOME, OPENED: send from 0"),
        Message(_DEVICE, _DAEMON, "CHUNK 0 to 4 MiB"),
        Message(_DAEMON, _DISK, "write, sync, record"),
        Message(_DAEMON, _DEVICE, "ACK: 4 MiB would survive a power cut", is_promise=True),
        Message(_DEVICE, _DAEMON, "CHUNK 4 to 6 MiB"),
        Message(_DAEMON, _DISK, "write"),
        Break("the link breaks"),
        Message(_DEVICE, _DAEMON, "HELLO, OPEN clip.bin (the name is all it kept)"),
        Message(_DAEMON, _DEVICE, "OPENED: send from 4 MiB", is_promise=True),
        Message(_DEVICE, _DAEMON, "CHUNK 4 to 9 MiB, FINISH with a digest"),
        Message(_DAEMON, _DISK, "write, sync, compare, record"),
        Message(_DAEMON, _DEVICE, "FINISHED: the file is complete", is_promise=True),
    ],
)

_LOOP, _THREADS, _STORE = 1, 2, 3
_FOUR = ("device", "event loop", "threads", "disk")

_CHUNK = draw(
    "The life of a chunk",
    _FOUR,
    [
        Message(_DEVICE, _LOOP, "CHUNK, into leased memory"),
        Note(_LOOP, "check form, checksum, window; find what is missing"),
        Message(_LOOP, _THREADS, "the pieces, not copied"),
        Message(_THREADS, _STORE, "pwrite"),
        Message(_THREADS, _LOOP, "written: the memory goes back to the pool"),
        Note(_LOOP, "the cycle is cut: by bytes, by milliseconds, by FINISH"),
        Message(_THREADS, _STORE, "sync of the files that grew"),
        Message(_THREADS, _STORE, "one catalog transaction for all of them"),
        Message(_THREADS, _LOOP, "recorded"),
        Message(_LOOP, _DEVICE, "ACK", is_promise=True),
    ],
)

_TAKEOVER = draw(
    "A takeover",
    ("old link", "uplinkd", "catalog", "new link"),
    [
        Message(0, 1, "CHUNK 4 to 6 MiB"),
        Note(1, "written, not yet synced: durable to 4 MiB"),
        Message(3, 1, "OPEN of the same name"),
        Message(1, 2, "epoch 7 → 8, N = 4 MiB"),
        Message(1, 0, "ERROR: FENCED"),
        Message(1, 3, "OPENED: send from 4 MiB", is_promise=True),
        Message(1, 2, "progress WHERE epoch = 7: no row"),
        Note(1, "no ACK to the old link; nobody waited for a lock"),
        Message(3, 1, "CHUNK 4 to 9 MiB"),
        Message(1, 2, "progress WHERE epoch = 8"),
        Message(1, 3, "ACK: 9 MiB", is_promise=True),
    ],
)

_DRAIN = draw(
    "A drain",
    ("device", "uplinkd, old", "uplinkd, new"),
    [
        Note(1, "SIGTERM"),
        Message(1, 0, "GOAWAY: come back in 1 to 30 s"),
        Message(0, 1, "CHUNK under way"),
        Message(1, 0, "ACK", is_promise=True),
        Note(1, "last cycle, then the connection ends"),
        Note(2, "the sockets waited in systemd"),
        Message(0, 2, "HELLO, OPEN"),
        Message(2, 0, "OPENED: send from N", is_promise=True),
    ],
)

_RECOVERY = draw(
    "Recovery after a power cut",
    ("device", "uplinkd", "catalog", "files"),
    [
        Break("power cut"),
        Note(1, "takes the lock of the data directory"),
        Message(1, 2, "what was recorded?"),
        Message(2, 1, "uploads with their durable ranges"),
        Message(1, 3, "is each file at least that long?"),
        Note(1, "what is in doubt is kept and reported"),
        Message(0, 1, "OPEN"),
        Message(1, 0, "OPENED: N as recorded", is_promise=True),
    ],
)

PICTURES = {
    "upload": _UPLOAD,
    "chunk": _CHUNK,
    "takeover": _TAKEOVER,
    "drain": _DRAIN,
    "recovery": _RECOVERY,
}
"""SVG documents by name."""

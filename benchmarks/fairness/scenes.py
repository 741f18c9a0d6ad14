"""Every scene."""

from benchmarks.fairness import loads, uploads, web
from benchmarks.fairness.forged import forged_tokens, trusted_keys
from benchmarks.fairness.loads import Dripping, Greedy
from benchmarks.fairness.modest import Fleet
from benchmarks.fairness.scene import Scene

MIB = 1 << 20

FEW = Fleet(20, 2, 10)
"""Where `connections_max` leaves room for fewer devices."""

SHORT_HANDSHAKE = {"LIMITS__HANDSHAKE_TIMEOUT_S": "3"}
"""So that strangers renew their connections within a scene."""

FULL_DOOR = {"LIMITS__CONNECTIONS_MAX": "300", **SHORT_HANDSHAKE}
"""Room for the modest devices and some more."""

SCENES = (
    Scene("one-byte", "chunks of 1 byte to 32 uploads in turn", Greedy(1, 32, 1, "compact")),
    Scene("tiny", "chunks of 64 bytes to 4 uploads in turn", Greedy(1, 4, 64, "compact")),
    Scene(
        "one-byte-many",
        "320 connections of one device, chunks of 1 byte to 32 uploads each",
        Greedy(320, 32, 1, "compact"),
        is_many=True,
    ),
    Scene("duplicates", "an acknowledged chunk of 1 byte again and again", Greedy(1, 1, 1, "crc32c", again=True)),
    Scene("pool-hostage", "165 connections of one device, chunks that grow 100 B/s", Dripping(1, 100)),
    Scene("pool-honest", "165 slow devices, chunks that grow 200 B/s", Dripping(165, 200)),
    Scene(
        "tls-silence",
        "700 strangers do not shake hands; 50 connections, 512 descriptors",
        loads.silent(700),
        FEW,
        {"LIMITS__CONNECTIONS_MAX": "50"},
        is_many=True,
        tls=True,
        files_max=512,
    ),
    Scene(
        "door-strangers",
        "400 strangers at one address keep coming back; 300 connections",
        loads.silent(400),
        settings=FULL_DOOR,
        is_many=True,
    ),
    Scene("door-device", "one device makes 400 connections; 300 are allowed", loads.holding(400), settings=FULL_DOOR),
    Scene("bulk-many", "50 bulk connections of one device", Greedy(50, 1, 256 << 10, "sum8")),
    Scene("bulk-one", "one bulk connection, chunks of 1 MiB", Greedy(1, 1, MIB, "sum8")),
    Scene("digests", "96 digests started again and again", uploads.Digests()),
    Scene(
        "http-idle",
        "450 idle connections to HTTP; 768 descriptors",
        web.idle(450),
        settings={"LIMITS__CONNECTIONS_MAX": "300"},
        is_many=True,
        files_max=768,
    ),
    Scene("http-pipelined", "5 clients ask for /metrics without end, and read nothing", web.pipelining(5)),
    Scene("http-slow", "60 readers at 10 kB/s, of 20 devices", web.reading_slowly(60, 10_000, 20)),
    Scene("http-slots", "one device holds every download slot", web.reading_slowly(64, 10_000, 1)),
    Scene("empty-files", "empty files as fast as possible", uploads.empty_files()),
    Scene("log-stalls", "nobody reads the log; 200 requests a second", web.asking_for_health(10), log_stalls=True),
    Scene(
        "forged-tokens",
        "tokens without kid against 63 RSA keys, 640 a second",
        forged_tokens(32, 0.05),
        prepare=trusted_keys,
    ),
    Scene(
        "pause",
        "the daemon stands still for 5 s",
        loads.pausing(5),
        settings={"LIMITS__IDLE_TIMEOUT_S": "4", "LIMITS__KEEPALIVE_S": "1", "LIMITS__RATE_WINDOW_S": "3"},
    ),
    Scene("small", "20 connections of one device, chunks of 16 bytes", Greedy(20, 1, 16, "sum8")),
    Scene("stutter", "100 frames that grow a byte a second", loads.stuttering(100)),
    Scene("silent", "300 devices that say nothing once admitted", loads.holding(300, 300), is_many=True),
    Scene("deaf", "a device with 10 connections reads no PONG", loads.deaf(10)),
    Scene("abandoned", "uploads opened and given up as fast as possible", uploads.abandoned_files()),
    Scene(
        "crowded",
        "300 devices at one address connect anew each second",
        loads.holding(300, 300, lives_s=1),
        is_many=True,
    ),
)

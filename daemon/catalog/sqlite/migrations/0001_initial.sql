-- State: 0 receiving, 1 partial, 2 complete, 3 rejected, 4 aborted, 5 deleted, 6 expired. 0 to 3 hold bytes.
-- Times are Unix milliseconds. NULL is unknown or not yet.
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    name TEXT NOT NULL,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 6),
    is_current INTEGER NOT NULL CHECK (is_current = 0 OR is_current = 1 AND state <= 2),
    epoch INTEGER NOT NULL,
    size INTEGER,
    tag BLOB NOT NULL,
    -- Big-endian, 20 bytes a range: start u64, end (exclusive) u64, CRC32C u32.
    ranges BLOB NOT NULL,
    -- What the upload counts towards its device's quota: the greater of size and bytes received; 0 once they are gone.
    held_bytes INTEGER NOT NULL,
    crc32c INTEGER,
    sha256 BLOB,
    crc32c_expected INTEGER,
    sha256_expected BLOB,
    content_type TEXT NOT NULL,
    external_id TEXT NOT NULL,
    original_name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL CHECK (updated_ms >= created_ms),
    completed_ms INTEGER
) STRICT;

-- Lists, newest first. The row's id is the last part of every index, so (created_ms, id) needs no sorting.
CREATE INDEX uploads_by_tenant ON uploads (tenant, created_ms);
CREATE INDEX uploads_by_tenant_state ON uploads (tenant, state, created_ms);
CREATE INDEX uploads_by_device ON uploads (tenant, device, created_ms);
CREATE INDEX uploads_by_device_state ON uploads (tenant, device, state, created_ms);
CREATE INDEX uploads_by_tenant_name ON uploads (tenant, name);

-- What is known under one name.
CREATE INDEX uploads_by_name ON uploads (tenant, device, name, created_ms);
CREATE UNIQUE INDEX uploads_current ON uploads (tenant, device, name) WHERE is_current = 1;
CREATE INDEX uploads_superseded ON uploads (tenant, device, name) WHERE state = 2 AND is_current = 0;
-- The upload under a name that ended last stands for the name if none is under way or complete. A name that is replaced
-- every minute has thousands that ended, so they must not all be read. 3 to 6 are the states of an end.
CREATE INDEX uploads_ended ON uploads (tenant, device, name, updated_ms, created_ms) WHERE state > 2;

-- Progress rewrites updated_ms of receiving uploads alone: it costs one of these two, never both.
CREATE INDEX uploads_by_age ON uploads (state, updated_ms);
CREATE INDEX uploads_settled ON uploads (tenant, updated_ms) WHERE state > 0;
CREATE INDEX uploads_receiving ON uploads (id) WHERE state = 0;

CREATE TABLE usage (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    -- Rows of any state: each costs the catalog some kilobytes, also that of an empty file.
    uploads INTEGER NOT NULL,
    PRIMARY KEY (tenant, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE state_counts (
    state INTEGER PRIMARY KEY,
    uploads INTEGER NOT NULL
) STRICT;
INSERT INTO state_counts (state, uploads) VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);

CREATE TRIGGER uploads_inserted AFTER INSERT ON uploads BEGIN
    UPDATE state_counts SET uploads = uploads + 1 WHERE state = NEW.state;
    INSERT INTO usage (tenant, device, bytes, uploads) VALUES (NEW.tenant, NEW.device, NEW.held_bytes, 1)
        ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes, uploads = uploads + 1;
END;
CREATE TRIGGER uploads_held AFTER UPDATE OF held_bytes ON uploads WHEN NEW.held_bytes <> OLD.held_bytes BEGIN
    UPDATE usage SET bytes = bytes + NEW.held_bytes - OLD.held_bytes
        WHERE tenant = NEW.tenant AND device = NEW.device;
END;
CREATE TRIGGER uploads_moved AFTER UPDATE OF state ON uploads WHEN NEW.state <> OLD.state BEGIN
    UPDATE state_counts SET uploads = uploads - 1 WHERE state = OLD.state;
    UPDATE state_counts SET uploads = uploads + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER uploads_removed AFTER DELETE ON uploads BEGIN
    UPDATE state_counts SET uploads = uploads - 1 WHERE state = OLD.state;
    UPDATE usage SET bytes = bytes - OLD.held_bytes, uploads = uploads - 1
        WHERE tenant = OLD.tenant AND device = OLD.device;
END;

-- A device without a key was never enrolled: it proves itself by a token, or was disabled before it ever came.
CREATE TABLE devices (
    tenant TEXT NOT NULL,
    device TEXT NOT NULL,
    key BLOB,
    created_ms INTEGER NOT NULL,
    disabled_ms INTEGER,
    -- Counts the secrets that the device was given. What an earlier one has opened is void.
    generation INTEGER NOT NULL,
    PRIMARY KEY (tenant, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_disabled ON devices (tenant, device) WHERE disabled_ms IS NOT NULL;
CREATE INDEX devices_replaced ON devices (tenant, device, generation) WHERE generation > 1;

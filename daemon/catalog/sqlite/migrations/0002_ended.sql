-- The upload under a name that ended last: what the name stands for where nothing is under way or complete. A name that
-- is replaced every minute has thousands that ended, so they must not all be read. 3 to 6 are the states of an end.
CREATE INDEX uploads_ended ON uploads (tenant, device, name, updated_ms, created_ms) WHERE state > 2;

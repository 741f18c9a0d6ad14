"""Uploads from the first byte to the last: admission, live state, group commit, digests. It knows no frames."""

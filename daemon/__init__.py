"""The process: TCP server, sessions, uploads, storage, catalog and cleanup; `app` alone puts it together."""

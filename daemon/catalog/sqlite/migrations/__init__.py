"""The catalog's schema, one numbered SQL file a version; each is applied once, in order, in one transaction."""

"""The catalog in one SQLite database."""

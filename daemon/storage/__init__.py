"""Where the bytes of uploads are kept: interfaces, and files on a local disk."""

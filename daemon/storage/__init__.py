"""Where the bytes of uploads are kept: an interface, and files on a local disk."""

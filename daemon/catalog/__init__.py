"""The catalog: what the daemon knows of uploads, their bytes and the devices that send them."""

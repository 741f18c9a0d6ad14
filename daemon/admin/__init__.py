"""The operator's commands, and the Unix socket that carries them."""

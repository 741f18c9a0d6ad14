"""`python -m benchmarks.peers`: which peers are installed."""

import importlib

NAMES = ("mosquitto", "nats", "nginx", "rsync", "sftp", "tus")


def main() -> None:
    for name in NAMES:
        absent: str | None = importlib.import_module(f"benchmarks.peers.{name}").missing()
        print(f"{name:10} {'is here' if absent is None else f'is missing: {absent}'}")


if __name__ == "__main__":
    main()

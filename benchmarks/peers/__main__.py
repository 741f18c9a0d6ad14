"""`python -m benchmarks.peers`: list the installed and the missing peers."""

import importlib

NAMES = ("mosquitto", "nats", "nginx", "rsync", "sftp", "tus")


def main() -> None:
    for name in NAMES:
        absent: str | None = importlib.import_module(f"benchmarks.peers.{name}").missing()
        print(f"{name:10} {'is installed' if absent is None else f'is missing: {absent}'}")


if __name__ == "__main__":
    main()

"""The daemon as a process: signals, systemd, the watchdog's pulse."""

"""`python -m daemon` is `uplinkd`."""

from daemon.cli import main

raise SystemExit(main())

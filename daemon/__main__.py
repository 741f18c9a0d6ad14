"""`python -m daemon` is `uplinkd`."""

from daemon.cli.entry import main

raise SystemExit(main())

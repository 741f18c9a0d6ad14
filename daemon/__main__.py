"""`python -m daemon` is `uplinkd`."""

from daemon.cli.main import main

raise SystemExit(main())

"""How fast uplinkd is: beside the machine's limit and beside what its users would otherwise pick, in one run."""

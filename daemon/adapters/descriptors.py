"""The process's limit of file descriptors."""

import resource


def raise_limit() -> int:
    """Raise the soft limit to the hard one, which needs no privilege, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def limit() -> int:
    """How many descriptors a daemon in this environment could have: the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard

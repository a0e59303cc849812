"""What must not stand in a report or a log that a user may send to somebody?"""

from __future__ import annotations


def redacted(text: str) -> str:
    """The text without what looks like a key, a password in a URL or a bearer token."""
    import re

    return re.sub(
        r"sk-ant-[A-Za-z0-9_-]+|\b(?:gh[a-z]_|github_pat_|glpat-)[A-Za-z0-9_-]+|(?<=://)[^/@\s]+@|(?i:bearer\s+\S+)",
        "[redacted]",
        text,
    )

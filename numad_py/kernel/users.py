"""The users that this machine knows, by whatever it asks (NSS): that may be a server."""

from __future__ import annotations

import pwd


def name_of(uid: int) -> str | None:
    """Return a user's name; None where nobody has that id."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, ValueError):
        return None


def exists(name: str) -> bool:
    """Say whether a user of that name is known."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError, OSError):
        return False
    return True

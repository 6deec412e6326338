"""Passwords are never shown."""

from __future__ import annotations

import re

#: user:password@ of a URL, and password=… of its options or of a connection string
_PASSWORDS = re.compile(r"(://[^:/@\s]*:)[^@\s]*(?=@)|((?:password|passwd|pwd|token)=)[^&;\s'\"]*", re.IGNORECASE)


def hidden(text: str) -> str:
    """A text with ``***`` where URLs in it have a password."""
    return _PASSWORDS.sub(lambda found: f"{found[1] or found[2]}***", text)

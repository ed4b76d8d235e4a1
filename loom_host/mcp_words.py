"""The key `mcp` of a plugin's table: a command, or the address of a server."""

from __future__ import annotations

from loom_sdk.errors import ConfigError


def is_url(words: tuple[str, ...]) -> bool:
    """Whether the server is reached by streamable HTTP."""
    return len(words) == 1 and words[0].startswith(("http://", "https://"))


def check_server(value: object, where: str) -> tuple[str, ...]:
    """The words of a command, or one address. Raises ConfigError."""
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
        words = ()
    found = tuple(map(str, words))
    if not found or (isinstance(value, str) and not is_url(found)):
        raise ConfigError(
            f"{where} mcp = {value!r}: must be a command as a list, such as "
            '["mcp-server-git"], or an address, such as "https://example.com/mcp"'
        )
    return found

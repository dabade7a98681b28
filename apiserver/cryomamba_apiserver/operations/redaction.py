"""The last line of defence against secrets in logs: what looks like one is taken out of every line."""

import re

_REDACTED = "[redacted]"

# Nobody is meant to log any of these. The patterns are linear in the length of a line.
_SECRETS = re.compile(
    r"""
    (?P<kept>
        \bbearer[ .]                                                # Authorization, and the WebSocket's subprotocol
      | (?:token|signature|sig|secret|password|credential)(?:=|%3D)  # queries: ?token=, X-Amz-Signature=, …
    )
    (?P<hidden>[^\s&"'<>\\,;]+)
  | (?P<jwt>\beyJ[\w-]{8,}(?:\.[\w-]*){0,2})                          # also one that was cut short
  | (?P<scheme>\b[a-z]{2,10}://)[^\s/@"']+@                          # a password in a URL
    """,
    re.IGNORECASE | re.VERBOSE,
)


# Every match has one of these; looking for them first is thirty times as fast, and lines with any are few.
_SIGNS = ("bearer", "token", "sig", "secret", "password", "credential", "eyj", "://")


def redact(text: str) -> str:
    """Return a line of a log without what looks like a token, a signature or a password."""
    lower = text.lower()
    if not any(sign in lower for sign in _SIGNS):
        return text
    return _SECRETS.sub(_without_secret, text)


def _without_secret(match: re.Match[str]) -> str:
    if match["jwt"]:
        return _REDACTED
    if match["scheme"]:
        return f"{match['scheme']}{_REDACTED}@"
    return f"{match['kept']}{_REDACTED}"

"""What settings are made of: types with their units, and the class of a group."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "CRYOMAMBA_"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_REDIS_SCHEMES = ("redis", "rediss", "valkey", "valkeys")


@dataclass(frozen=True)
class Unit:
    """What a number counts, for the table of settings."""

    name: str


def _words(value: object) -> object:
    return tuple(filter(None, (word.strip() for word in value.split(",")))) if isinstance(value, str) else value


def _https(url: str) -> str:
    # Whoever can change what is read without TLS can sign tokens.
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.scheme == "https" or local) or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an https:// URL without user, query and fragment (http:// on the loopback only)")
    return url


def _has_number_for_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _redis(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in _REDIS_SCHEMES or not parts.hostname or not _has_number_for_port(parts):
        raise ValueError(f"must be a URL with a host and one of the schemes {', '.join(_REDIS_SCHEMES)}")
    return url


# Upper bounds are far beyond what is of use, and keep what is computed from a setting within what clocks, timers, the
# file system and S3 can take.
DAY = 86400
Bytes = Annotated[int, Field(ge=1, le=2**50), Unit("bytes")]
Seconds = Annotated[float, Field(gt=0, le=DAY, allow_inf_nan=False), Unit("s")]
WholeSeconds = Annotated[int, Field(ge=1, le=DAY), Unit("s")]
Days = Annotated[int, Field(ge=1, le=36500), Unit("d")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Port = Annotated[int, Field(ge=0, le=65535)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
Name = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Given as one string, separated by commas."""
Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_words)]


def _origin(value: str) -> str:
    url = urlsplit(value)
    bare = not (url.path.strip("/") or url.query or url.fragment)
    if url.scheme not in {"http", "https"} or not url.hostname or not _has_number_for_port(url) or not bare:
        raise ValueError("expected http://host[:port] or https://host[:port], without a path")
    if "@" in url.netloc:
        raise ValueError("credentials do not belong in a URL")
    return f"{url.scheme}://{url.netloc.lower()}"


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
Origin = Annotated[str, AfterValidator(_origin)]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_words)]


class Group(BaseSettings):
    """What all groups share."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        # Errors of a secret setting must not show it; `read_settings` shows the others.
        hide_input_in_errors=True,
    )

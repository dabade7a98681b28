"""Tokens of an OpenID Connect issuer, checked with the keys that it publishes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cryomamba_apiserver.auth import Principal, invalid_token
from cryomamba_apiserver.errors import UnavailableError
from cryomamba_apiserver.tokens.authority import Verifier, read_header, read_payload
from cryomamba_apiserver.tokens.fetching import DocumentError, fetch_json
from cryomamba_apiserver.tokens.key_set import ALGORITHMS, KeySet, PublicKey, read_key_set

_log = logging.getLogger(__name__)

UNKNOWN_KEY_SECONDS = 10.0
"""Strangers choose the key ids of their tokens: the issuer is asked about unknown ones this often at most."""
KEYS_GOOD_SECONDS = 600.0
"""Keys older than this are fetched again, so that one that was withdrawn stops counting."""

Fetch = Callable[[str], Awaitable[object]]


class IssuerKeys:
    """An issuer's keys, fetched when they are needed and kept while it is away."""

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None,
        *,
        fetch: Fetch = fetch_json,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the issuer's URL, and its keys' where it is not to be asked for that."""
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._fetch = fetch
        self._monotonic = monotonic
        self._tried: float | None = None
        self._fetched: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._keys: KeySet | None = None
        self.away = False
        """Whether the issuer did not answer the last time that it was asked."""

    @property
    def held(self) -> KeySet | None:
        """The keys as they were last fetched."""
        return self._keys

    async def find(self, algorithm: str, kid: object) -> PublicKey | None:
        """Return the key that a token names, None where the issuer has none of that name.

        Raises:
            UnavailableError: The issuer can't be asked, so that nobody knows.
        """
        key = self._keys.find(algorithm, kid) if self._keys else None
        if key is not None:
            self.refresh_if_old()
            return key
        if self._running is None and self._may_ask(UNKNOWN_KEY_SECONDS):
            self._start()
        if self._running is not None:
            # Shielded: others wait for the same answer.
            await asyncio.shield(self._running)
            key = self._keys.find(algorithm, kid) if self._keys else None
        if key is None and self.away:
            raise UnavailableError(
                "The issuer of tokens does not answer, so this token cannot be checked.",
                hint="Try again in a while.",
                headers={"Retry-After": f"{UNKNOWN_KEY_SECONDS:.0f}"},
            )
        return key

    def refresh_if_old(self) -> None:
        """Begin to fetch keys that are old, without waiting for them."""
        old = self._fetched is None or self._monotonic() >= self._fetched + KEYS_GOOD_SECONDS
        if old and self._running is None and self._may_ask(UNKNOWN_KEY_SECONDS):
            self._start()

    async def close(self) -> None:
        """End what is being fetched."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _may_ask(self, every: float) -> bool:
        return self._tried is None or self._monotonic() >= self._tried + every

    def _start(self) -> None:
        self._tried = self._monotonic()
        self._running = asyncio.create_task(self._refresh(), name="keys of the issuer")
        self._running.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._running = None

    async def _refresh(self) -> None:
        try:
            keys = read_key_set(await self._fetch(await self._url()))
        except (DocumentError, ValueError) as error:
            if not self.away:
                kept = "the keys that it had are kept" if self._keys else "there are no keys yet"
                _log.error("the keys of the issuer %s can't be had, %s: %s", self._issuer, kept, error)
            self.away = True
            return
        if self.away:
            _log.warning("the keys of the issuer %s can be had again", self._issuer)
        self.away = False
        self._fetched = self._monotonic()
        self._keys = keys

    async def _url(self) -> str:
        if self._jwks_url is not None:
            return self._jwks_url
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self._fetch(url)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            # OpenID Connect Discovery 1.0, section 4.3: else one issuer could speak for another.
            raise DocumentError(f"{url} is not the document of this issuer: its 'issuer' is another")
        keys_url = document.get("jwks_uri")
        plain = self._issuer.startswith("http://")
        if not isinstance(keys_url, str) or not keys_url.startswith(("https://", "http://") if plain else "https://"):
            raise DocumentError(f"the jwks_uri of {url} is no https:// URL")
        return keys_url


class IssuerAuthority:
    """Checks an issuer's tokens."""

    def __init__(self, keys: IssuerKeys, verifier: Verifier) -> None:
        """Take the issuer's keys, and what its tokens must claim."""
        self._issuer_keys = keys
        self._verifier = verifier
        self._checked_with: KeySet | None = None

    async def check(self, token: str) -> Principal:
        """Return who holds a token; raise AuthenticationError, or UnavailableError where its key can't be had."""
        self._issuer_keys.refresh_if_old()
        self._forget_what_other_keys_have_signed()
        if (principal := self._verifier.remembered(token)) is not None:
            return principal
        header = read_header(token, ALGORITHMS)
        algorithm: str = header["alg"]
        key = await self._issuer_keys.find(algorithm, header.get("kid"))
        if key is None:
            raise invalid_token("The token is signed with a key that its issuer does not have.")
        self._forget_what_other_keys_have_signed()
        return self._verifier.accept(token, read_payload(token, key, algorithm))

    async def close(self) -> None:
        """End what is being fetched."""
        await self._issuer_keys.close()

    def _forget_what_other_keys_have_signed(self) -> None:
        if self._issuer_keys.held is not self._checked_with:
            self._checked_with = self._issuer_keys.held
            self._verifier.forget()

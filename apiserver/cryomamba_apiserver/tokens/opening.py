"""Makes the token authority that the settings ask for."""

from collections.abc import Callable
from datetime import datetime

from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.tokens.authority import TokenAuthority, Verifier
from cryomamba_apiserver.tokens.denied import DeniedTokens
from cryomamba_apiserver.tokens.issuer import IssuerAuthority, IssuerKeys
from cryomamba_apiserver.tokens.secret import SecretAuthority, load_or_create_secret, long_enough, read_secret
from cryomamba_crds.failures import FailureCode, FailureError


def server_secret(settings: Settings) -> bytes:
    """Return the secret that signs links, and tokens where there is no issuer; raise FailureError where it is bad."""
    if settings.token_secret is not None:
        return long_enough(settings.token_secret.get_secret_value().encode(), "CRYOMAMBA_TOKEN_SECRET")
    if settings.token_secret_file is not None:
        return read_secret(settings.token_secret_file)
    return load_or_create_secret(settings.data_dir)


def check_token_settings(settings: Settings) -> None:
    """Raise FailureError where the secret or the list of revoked tokens is bad; to be called before a server starts."""
    server_secret(settings)
    _denied(settings)


def own_authority(settings: Settings, now: Callable[[], datetime]) -> SecretAuthority:
    """Return the authority that issues tokens itself.

    Raises:
        FailureError: Another issues them, by the settings; or the secret or the list of revoked tokens is bad.
    """
    if settings.oidc_issuer is not None:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"This server takes the tokens of {settings.oidc_issuer} and issues none.",
            hint="Get one there, or start the server without CRYOMAMBA_OIDC_ISSUER.",
        )
    return SecretAuthority(
        server_secret(settings), settings.token_issuer, settings.token_audience, now, _denied(settings)
    )


def open_authority(settings: Settings, now: Callable[[], datetime]) -> TokenAuthority:
    """Return the authority whose tokens the server takes; raise FailureError where a setting is bad."""
    if settings.oidc_issuer is None:
        return own_authority(settings, now)
    keys = IssuerKeys(settings.oidc_issuer, settings.oidc_jwks_url)
    denied = _denied(settings)
    verifier = Verifier(settings.oidc_issuer, settings.token_audience, denied, lambda: now().timestamp())
    return IssuerAuthority(keys, verifier)


def _denied(settings: Settings) -> DeniedTokens:
    try:
        return DeniedTokens(settings.denied_jtis, settings.denied_jtis_file)
    except (OSError, ValueError) as error:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"CRYOMAMBA_DENIED_JTIS_FILE: {settings.denied_jtis_file} can't be read: {error}.",
            hint="Name a file that the server may read, with one jti a line.",
        ) from error

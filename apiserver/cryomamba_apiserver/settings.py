"""Settings of the server, from the environment (`CRYOMAMBA_…`) and the command line.

A class a group. A setting's docstring is its row in `docs/settings.md`, which `make generate` writes; its unit is that
of its type. What is secret is a `SecretStr`, and what is a list a `Words`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FilePath, SecretStr, ValidationError, model_validator

from cryomamba_apiserver.setting_types import (
    DAY,
    PREFIX,
    Bytes,
    Count,
    Days,
    Group,
    HttpsUrl,
    Name,
    Networks,
    Origin,
    Origins,
    Port,
    RedisUrl,
    Seconds,
    Unit,
    WholeSeconds,
    Words,
    variable_of,
)
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.resource import Resources


def default_data_dir() -> Path:
    """Return where a workstation's data is kept, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cryomamba"


class ListeningSettings(Group):
    """Where the server listens."""

    listen_host: str = "127.0.0.1"
    """Address to listen on; also `--host`. 0.0.0.0: all of this machine's."""
    listen_port: Port = 8000
    """Port to listen on, 0 for a free one; also `--port`."""
    trusted_proxies: Networks = ()
    """Addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    max_connections: Count = 500
    """Connections at a time, WebSockets included; for one more an idle one is closed, or it is told 503."""
    max_connections_per_address: Count = 200
    """The same for each address (IPv6: each /64 network), but for those of `trusted_proxies`."""
    keep_alive_seconds: WholeSeconds = 30
    """How long a connection may be idle between two requests."""
    shutdown_seconds: WholeSeconds = 30
    """How long requests that are being served may go on after SIGTERM."""


class RequestSettings(Group):
    """What a request may be."""

    header_seconds: Seconds = 10
    """How long a client may take to send a request's line and headers."""
    body_seconds: Seconds = 30
    """Over any time of this length a client that is sending a body must keep to `body_rate`, or it is cut off."""
    body_rate: Annotated[int, Field(ge=0, le=2**40), Unit("bytes/s")] = 1024
    """The slowest that a body may come or be read; what is faster may take as long as it needs."""
    send_seconds: Seconds = 60
    """Over any time of this length a client that has been sent more than it has read must read at `body_rate`, or it is
    cut off."""
    max_request_line: Bytes = 8192
    """The longest target of a request (path and query)."""
    max_headers: Bytes = 32768
    """The most that a request's headers may have together, the target included."""
    max_query_parameters: Count = 64
    """How many parameters a query may have."""


class StorageSettings(Group):
    """Where things are kept."""

    data_dir: Annotated[Path, Field(default_factory=default_data_dir)]
    """Directory of the local profile: jobs, files, models, the secret of tokens; also `--data-dir`."""
    storage_reserve: Annotated[int, Field(ge=0), Unit("bytes")] | None = None
    """What uploads leave free on the data directory's disk, for jobs and records; none: 5 % of it, at most 1 GiB."""


class S3Settings(Group):
    """An S3 store, in place of the data directory's; jobs, and the secret of tokens, stay in that directory."""

    s3_endpoint: Origin | None = None
    """Where the S3 store is, `https://host[:port]`; none: files and models are kept in the data directory."""
    s3_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    """The bucket; it must be there, and be used by nothing else."""
    s3_region: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$")] = "us-east-1"
    """The bucket's region; MinIO's is `us-east-1` unless it was given another."""
    s3_access_key: SecretStr | None = None
    """Access key; or else `s3_access_key_file`."""
    s3_access_key_file: FilePath | None = None
    """File that holds the access key, such as a mounted secret; read at start."""
    s3_secret_key: SecretStr | None = None
    """Secret key; or else `s3_secret_key_file`."""
    s3_secret_key_file: FilePath | None = None
    """File that holds the secret key; read at start."""
    s3_session_token: SecretStr | None = None
    """Session token of temporary credentials; they end, and the server has then to be started with new ones."""
    s3_path_style: bool = True
    """Whether the bucket is in the path (`https://host/bucket/key`) or in the host's name (`https://bucket.host/key`)."""
    s3_ca_file: FilePath | None = None
    """PEM file of the certificates to trust in place of the system's."""
    s3_public_endpoint: Origin | None = None
    """Where clients reach the same store; downloads then go there. None: they go through the server."""

    @model_validator(mode="after")
    def _is_one_s3_store(self) -> Self:
        names = [name for name in S3Settings.model_fields if name in self.model_fields_set]
        given = [name for name in names if getattr(self, name) is not None]
        if self.s3_endpoint is None:
            if given:
                raise ValueError(f"{variable_of(given[0])} is of no use without {variable_of('s3_endpoint')}")
            return self
        if self.s3_bucket is None:
            raise ValueError(f"{variable_of('s3_bucket')} is needed with {variable_of('s3_endpoint')}")
        for which in ("access", "secret"):
            self.s3_key(which)
        if self.s3_ca_file is not None and not self.s3_endpoint.startswith("https:"):
            raise ValueError(f"{variable_of('s3_ca_file')} is of no use where {variable_of('s3_endpoint')} is http")
        if self.s3_ca_file is not None and b"-----BEGIN CERTIFICATE-----" not in self.s3_ca_file.read_bytes():
            raise ValueError(f"{variable_of('s3_ca_file')} holds no certificates in PEM form")
        return self

    def s3_key(self, which: Literal["access", "secret"]) -> str:
        """Return the key that is set or that its file holds; raise ValueError that names the setting."""
        value: SecretStr | None = getattr(self, f"s3_{which}_key")
        file: Path | None = getattr(self, f"s3_{which}_key_file")
        names = f"{variable_of(f's3_{which}_key')} and {variable_of(f's3_{which}_key_file')}"
        if (value is None) == (file is None):
            raise ValueError(f"give one of {names}, and not both")
        key = value.get_secret_value() if value else file.read_text().strip() if file else ""
        if not key:
            raise ValueError(f"what {names} give is empty")
        return key


class UploadSettings(Group):
    """Uploads and downloads."""

    max_upload_size: Bytes = 10 * 1024**3
    """The longest volume, as it is uploaded; also what a volume in gzip may have once it is inflated."""
    upload_ttl_seconds: Annotated[int, Field(ge=60, le=30 * DAY), Unit("s")] = 7200
    """How long an upload may take."""
    max_open_uploads: Count = 100
    """How many uploads one subject may have open; one more is told 429."""
    storage_quota: Bytes | None = None
    """What one subject's files and open uploads may take together; none: as much as there is room."""
    download_ttl_seconds: Annotated[int, Field(ge=60, le=7 * DAY), Unit("s")] = 3600
    """How long a signed URL works; S3 signs none for more than 7 days."""


class JobSettings(Group):
    """Jobs."""

    max_queued_jobs: Count = 1000
    """How many jobs may wait; one more is told 503."""


class KubernetesSettings(Group):
    """Kubernetes: with a namespace set, a cluster runs the jobs, and nothing is kept in the data directory."""

    kubernetes_namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)] | None = None
    """Where jobs are SegmentationJobs; none: this machine runs them. An S3 store and a secret of tokens are needed."""
    kubeconfig: FilePath | None = None
    """File that says how to reach Kubernetes; none: as the service account of the server's own pod."""
    job_gpus: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs that a job asks for; 0: it runs on CPUs."""
    job_memory: str = "16Gi"
    """Memory that a job asks for and gets at most, as Kubernetes writes it."""
    job_cpu: str = "2"
    """CPU cores that a job asks for, as Kubernetes writes them."""
    job_max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How many pods of a job may fail before the job does."""
    job_deadline_seconds: Annotated[int, Field(ge=60, le=7 * DAY), Unit("s")] = DAY
    """How long an attempt may run."""
    job_ttl_seconds: Annotated[int, Field(ge=0, le=365 * DAY), Unit("s")] | None = None
    """How long after its end a job's resource is kept, and with it the job; none: as `keep_jobs_days` says."""
    job_priority_class: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] | None = None
    """PriorityClass of jobs; the higher come first."""
    job_queue: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Kueue's local queue, where Kueue shares out the GPUs."""

    @model_validator(mode="after")
    def _asks_for_what_a_resource_can_ask_for(self) -> Self:
        for name in ("memory", "cpu"):
            try:
                Resources.model_validate({name: getattr(self, f"job_{name}")})
            except ValidationError:
                example = Resources.model_fields[name].default
                raise ValueError(f"{variable_of(f'job_{name}')} is not written as {example} is") from None
        if self.kubernetes_namespace is None and self.kubeconfig is not None:
            raise ValueError(f"{variable_of('kubeconfig')} is of no use without {variable_of('kubernetes_namespace')}")
        return self


class SweepSettings(Group):
    """The sweep: what is no longer needed is removed, by the server and by `cryomamba-apiserver sweep`."""

    sweep_interval_seconds: Annotated[int, Field(ge=0, le=30 * DAY), Unit("s")] = 600
    """How long the server waits between two sweeps; 0: it never sweeps, something else does."""
    sweep_grace_seconds: Annotated[int, Field(ge=0, le=3650 * DAY), Unit("s")] = 86400
    """How old something must be that nothing refers to before it is removed; at least the time of an upload."""
    keep_files_days: Days | None = None
    """How long a file is kept that no queued or running job needs; none: for ever."""
    keep_jobs_days: Days | None = None
    """How long a job that has ended is kept with its results; none: for ever."""


class TokenSettings(Group):
    """Tokens."""

    token_issuer: Name = "cryomamba"  # noqa: S105 - a name, no secret
    """The `iss` that a token must have."""
    token_audience: Name = "cryomamba"  # noqa: S105 - a name, no secret
    """The `aud` that a token must have."""
    token_secret: SecretStr | None = None
    """Secret of at least 32 bytes that signs tokens and links; none: the data directory keeps one of its own."""
    token_secret_file: Path | None = None
    """File with that secret, in place of it."""
    oidc_issuer: HttpsUrl | None = None
    """OpenID Connect issuer whose tokens (RS256, ES256) are taken; the server's own are then refused."""
    oidc_jwks_url: HttpsUrl | None = None
    """Where that issuer's keys are; none: where its `/.well-known/openid-configuration` says."""
    denied_jtis: Words = ()
    """The `jti` of each token that has been revoked."""
    denied_jtis_file: Path | None = None
    """File with more of them, one a line; read again when it changes."""

    @model_validator(mode="after")
    def _one_source_of_tokens(self) -> "TokenSettings":
        if self.token_secret and self.token_secret_file:
            raise ValueError("give one of CRYOMAMBA_TOKEN_SECRET and CRYOMAMBA_TOKEN_SECRET_FILE, not both")
        if self.oidc_jwks_url and not self.oidc_issuer:
            raise ValueError("CRYOMAMBA_OIDC_JWKS_URL needs CRYOMAMBA_OIDC_ISSUER")
        return self


class LimitSettings(Group):
    """Limits, for each subject of a token, or each address without one."""

    requests_per_minute: Count = 60
    """Requests; parts of uploads and probes are not counted."""
    jobs_per_hour: Count = 20
    """Jobs that are created."""
    uploads_per_subject: Count = 10
    """Parts that are sent and uploads that are completed at a time."""
    sockets_per_subject: Count = 5
    """WebSocket connections at a time."""
    limits_url: RedisUrl | None = None
    """Redis or Valkey that counts for all servers, `redis[s]://[user:password@]host[:port][/db]`; none: each alone."""


class BrowserSettings(Group):
    """Browsers."""

    cors_origins: Origins = ()
    """Origins whose pages may call the API, as `https://host[:port]`; none: no page of another origin may."""
    hsts_seconds: Annotated[int, Field(ge=0, le=3650 * DAY), Unit("s")] = 0
    """`max-age` of `Strict-Transport-Security`; 0: the header is not sent. Only for a server that is behind TLS."""


class ObservationSettings(Group):
    """Logs, metrics, probes."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """`json`: a JSON object a line; `console`: for people; `auto`: `console` on a terminal, else `json`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important messages that are logged; requests are logged at `info`."""
    metrics_port: Port | None = None
    """Port of `/metrics` for Prometheus, and of `/livez` and `/readyz` too, 0 for a free one; none: no metrics."""
    metrics_host: str = "127.0.0.1"
    """Address on which `/metrics` listens; it asks for no token."""
    probe_seconds: Seconds = 2
    """How long each thing that `/readyz` asks may take to answer."""


class GpuAgentSettings(Group):
    """GPUs of a cluster: the agents, `cryomamba-apiserver gpu-agent`, and the server that asks them."""

    gpu_agent_selector: Name | None = None
    """Labels of the agents' pods, `name=value`, for the server; none: no agent is asked."""
    gpu_agent_port: Port = 9400
    """Port of the agents: where the server asks them, and where they listen."""
    gpu_agent_seconds: Seconds = 2
    """How long an agent may take to answer; what does not is named in the answer. It gives its driver 3/4 of that."""
    gpu_agent_host: str = "0.0.0.0"  # noqa: S104 - a pod's own address, which it does not know beforehand
    """Address on which an agent listens; `::` where pods have IPv6 addresses. It asks for no token."""


class Settings(
    GpuAgentSettings,
    ObservationSettings,
    BrowserSettings,
    LimitSettings,
    TokenSettings,
    SweepSettings,
    KubernetesSettings,
    JobSettings,
    UploadSettings,
    S3Settings,
    StorageSettings,
    RequestSettings,
    ListeningSettings,
):
    """Every setting has a default that suits one workstation."""

    @model_validator(mode="after")
    def _cluster_keeps_nothing_on_this_machine(self) -> Self:
        if self.kubernetes_namespace is None:
            return self
        needed = f"is needed with {variable_of('kubernetes_namespace')}"
        if self.s3_endpoint is None:
            raise ValueError(f"{variable_of('s3_endpoint')} {needed}: pods cannot read this machine's data directory")
        if self.token_secret is None and self.token_secret_file is None:
            raise ValueError(f"{variable_of('token_secret')}, or its file, {needed}: every server signs with the same")
        return self


GROUPS: tuple[type[Group], ...] = tuple(reversed(Settings.__bases__))

_OF_OTHERS = frozenset({"CRYOMAMBA_URL", "CRYOMAMBA_TOKEN"})
"""Settings of the client, which may well be run in the same shell."""
_OPERATOR = "CRYOMAMBA_OPERATOR_"
# Kubernetes tells a pod about the Services of its namespace; one named cryomamba-… looks like settings of ours.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")
"""What Kubernetes gives `…_PORT`; a number there is meant for a setting of ours that there is not."""


class SettingsError(FailureError):
    """A setting is wrong, or there is none of that name."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__(
            FailureCode.VALIDATION_ERROR,
            "The settings are not valid.\n" + "\n".join(f"  {problem}" for problem in problems),
            hint="docs/settings.md lists every setting.",
        )


def read_settings(environment: Mapping[str, str], **given: object) -> Settings:
    """Return the settings of the environment, with what was given on the command line in its place.

    Raises:
        SettingsError: Names each variable that is unknown or wrong, and what is expected; shows no secret.
    """
    if unknown := unknown_variables(environment):
        raise SettingsError(f"{name}: there is no such setting." for name in unknown)
    values = {name: environment[key] for name in Settings.model_fields if (key := variable_of(name)) in environment}
    try:
        # Strings are read as the environment's are, so both ways of handing one in mean the same.
        return Settings(**{**values, **given})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_problem(problem, environment) for problem in error.errors()) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings of the server and are none, in order."""
    known = {variable_of(name) for name in Settings.model_fields} | _OF_OTHERS
    return sorted(
        name
        for name, value in environment.items()
        if name.startswith(PREFIX)
        and name not in known
        and not name.startswith(_OPERATOR)
        and not _is_service_link(name, value)
    )


def _is_service_link(name: str, value: str) -> bool:
    if name.endswith("_PORT") and not name.endswith("_SERVICE_PORT") and _SERVICE_ADDRESS.fullmatch(value):
        return True
    return _SERVICE_LINK.search(name) is not None


def is_secret(name: str) -> bool:
    """Return whether a setting's value must not be shown."""
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def _problem(problem: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if not name:
        return f"{problem['msg']}."
    variable = variable_of(name)
    shown = "" if is_secret(name) or variable not in environment else f"; it is {environment[variable]!r:.80}"
    return f"{variable}: {problem['msg']}{shown}."

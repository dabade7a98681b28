import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryomamba_apiserver.settings import Settings, SettingsError, read_settings
from support.commands import CRYOMAMBA, ENVIRONMENT

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CRYOMAMBA_")]:
        monkeypatch.delenv(name)


def test_the_environment_is_read_and_the_command_line_goes_before_it() -> None:
    environment = {"CRYOMAMBA_MAX_QUEUED_JOBS": "7", "CRYOMAMBA_LISTEN_PORT": "1", "CRYOMAMBA_DENIED_JTIS": "a, b,"}

    settings = read_settings(environment, listen_port=2)

    assert (settings.max_queued_jobs, settings.listen_port, settings.denied_jtis) == (7, 2, ("a", "b"))


def test_a_variable_that_is_no_setting_is_refused_by_name_and_without_its_value() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"CRYOMAMBA_MAX_JOBS": "something secret"})

    assert "CRYOMAMBA_MAX_JOBS: there is no such setting" in caught.value.failure.message
    assert "something secret" not in str(caught.value.failure)


def test_each_wrong_setting_is_told_with_what_is_expected_and_what_it_is() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"CRYOMAMBA_MAX_QUEUED_JOBS": "many", "CRYOMAMBA_LOG_LEVEL": "loud"})

    message = caught.value.failure.message
    assert "CRYOMAMBA_MAX_QUEUED_JOBS: Input should be a valid integer" in message
    assert "it is 'many'" in message
    assert "CRYOMAMBA_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'; it is 'loud'" in message


@pytest.mark.parametrize("variable", ["CRYOMAMBA_LIMITS_URL"])
def test_a_wrong_secret_is_not_shown(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({variable: "ftp://user:hidden@host"})

    assert variable in caught.value.failure.message
    assert "hidden" not in str(caught.value.failure)


@pytest.mark.parametrize(
    "variable",
    [
        "CRYOMAMBA_URL",
        "CRYOMAMBA_TOKEN",
        "CRYOMAMBA_OPERATOR_IMAGE",
        "CRYOMAMBA_APISERVER_SERVICE_HOST",
        "CRYOMAMBA_APISERVER_PORT_8000_TCP_ADDR",
        "CRYOMAMBA_PORT",
    ],
)
def test_variables_of_the_client_the_operator_and_kubernetes_are_not_ours(variable: str) -> None:
    assert read_settings({variable: "tcp://10.0.0.1:8000"}).listen_port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "foo"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://a.org/path"),
        ("CORS_ORIGINS", "https://a.org:port"),
        ("TRUSTED_PROXIES", "nonsense/99"),
        ("HEADER_SECONDS", "inf"),
        ("PROBE_SECONDS", "nan"),
        ("TOKEN_ISSUER", ""),
        ("TOKEN_AUDIENCE", ""),
        ("DOWNLOAD_TTL_SECONDS", "999999999999"),
        ("UPLOAD_TTL_SECONDS", "999999999999"),
        ("UPLOAD_TTL_SECONDS", "99999999999999999999"),
        ("KEEP_JOBS_DAYS", "9999999999"),
        ("MAX_UPLOAD_SIZE", "99999999999999999999"),
        ("LISTENING_PORT", "9000"),
        ("HTTP_PORT", "9000"),
    ],
)
def test_a_setting_that_could_not_be_meant_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({f"CRYOMAMBA_{name}": value})

    assert f"CRYOMAMBA_{name}: " in caught.value.failure.message


def test_origins_and_networks_are_lists() -> None:
    settings = read_settings(
        {"CRYOMAMBA_CORS_ORIGINS": "https://A.org, http://b:8080/", "CRYOMAMBA_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}
    )

    assert settings.cors_origins == ("https://a.org", "http://b:8080")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("name", "value"), [("CRYOMAMBA_TOKEN_SECRET", "short"), ("CRYOMAMBA_DENIED_JTIS_FILE", "/nowhere/denied")]
)
def test_the_server_does_not_start_with_a_bad_secret_or_list_of_tokens(tmp_path: Path, name: str, value: str) -> None:
    done = subprocess.run(
        [*CRYOMAMBA, "serve", "--port", "0", "--data-dir", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | {name: value},
    )

    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_has_a_default_that_suits_a_workstation(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)

    assert settings.listen_host == settings.metrics_host == "127.0.0.1"
    assert settings.metrics_port is None
    assert settings.cors_origins == ()


def test_the_server_does_not_start_with_a_setting_that_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CRYOMAMBA, "serve", "--port", "0", "--data-dir", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | {"CRYOMAMBA_HEADER_SECOND": "3"},
    )

    assert done.returncode == 1
    assert "CRYOMAMBA_HEADER_SECOND: there is no such setting" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_table_of_settings_says_what_the_settings_are() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "apiserver" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


ON_A_CLUSTER = {
    "CRYOMAMBA_KUBERNETES_NAMESPACE": "lab",
    "CRYOMAMBA_S3_ENDPOINT": "https://store.example.org",
    "CRYOMAMBA_S3_BUCKET": "volumes",
    "CRYOMAMBA_S3_ACCESS_KEY": "key",
    "CRYOMAMBA_S3_SECRET_KEY": "secret",
    "CRYOMAMBA_TOKEN_SECRET": "t" * 32,
}


def test_a_cluster_needs_a_namespace_a_store_and_a_secret():
    settings = read_settings(ON_A_CLUSTER)

    assert (settings.kubernetes_namespace, settings.job_gpus, settings.job_memory) == ("lab", 1, "16Gi")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"CRYOMAMBA_TOKEN_SECRET": None}, "CRYOMAMBA_TOKEN_SECRET"),
        ({"CRYOMAMBA_KUBERNETES_NAMESPACE": "Lab"}, "CRYOMAMBA_KUBERNETES_NAMESPACE"),
        ({"CRYOMAMBA_JOB_MEMORY": "16 GB"}, "CRYOMAMBA_JOB_MEMORY"),
        ({"CRYOMAMBA_JOB_CPU": "many"}, "CRYOMAMBA_JOB_CPU"),
        ({"CRYOMAMBA_JOB_PRIORITY_CLASS": "Very Urgent"}, "CRYOMAMBA_JOB_PRIORITY_CLASS"),
        ({"CRYOMAMBA_KUBECONFIG": "/no/such/file"}, "CRYOMAMBA_KUBECONFIG"),
        ({"CRYOMAMBA_JOB_GPUS": "17"}, "CRYOMAMBA_JOB_GPUS"),
    ],
)
def test_what_is_missing_or_wrong_for_a_cluster_is_named(change, named):
    environment = {name: value for name, value in (ON_A_CLUSTER | change).items() if value is not None}

    with pytest.raises(SettingsError, match=named):
        read_settings(environment)


def test_a_kubeconfig_without_a_namespace_is_no_cluster():
    with pytest.raises(SettingsError, match="CRYOMAMBA_KUBECONFIG is of no use"):
        read_settings({"CRYOMAMBA_KUBECONFIG": __file__})

from pathlib import Path

from devcluster import package_index


def test_the_environment_s_settings_win_over_files() -> None:
    listing = ":env:.index-url='https://near.example/simple'\nglobal.index-url='https://far.example/simple'\n"

    assert package_index.parsed(listing) == {"index-url": "https://near.example/simple"}


def test_builds_are_told_what_pip_was_told(tmp_path: Path) -> None:
    pip = {"index-url": "https://user:word@near.example/simple", "cert": "/etc/authorities.pem", "timeout": "60"}

    secrets = package_index.secrets(
        tmp_path, pip, {"HTTPS_PROXY": "http://proxy.example:3128", "HOME": "/home/someone"}
    )

    assert secrets == {"network": tmp_path / "network", "certificates": Path("/etc/authorities.pem")}
    assert secrets["network"].read_text().splitlines() == [
        "export HTTPS_PROXY=http://proxy.example:3128",
        "export UV_DEFAULT_INDEX=https://user:word@near.example/simple",
        "export PIP_INDEX_URL=https://user:word@near.example/simple",
        "export SSL_CERT_FILE=/run/secrets/certificates",
        "export PIP_CERT=/run/secrets/certificates",
    ]


def test_nobody_else_may_read_how_the_index_is_reached(tmp_path: Path) -> None:
    secrets = package_index.secrets(tmp_path, {}, {})

    assert secrets["network"].stat().st_mode & 0o777 == 0o600


def test_what_uv_was_told_wins_over_pip(tmp_path: Path) -> None:
    pip = {"index-url": "https://far.example/simple"}

    secrets = package_index.secrets(tmp_path, pip, {"UV_DEFAULT_INDEX": "https://near.example/simple"})

    assert "export PIP_INDEX_URL=https://near.example/simple" in secrets["network"].read_text().splitlines()


def test_values_are_words_to_the_shell(tmp_path: Path) -> None:
    secrets = package_index.secrets(tmp_path, {"trusted-host": "a.example $(touch b)"}, {})

    assert "export PIP_TRUSTED_HOST='a.example $(touch b)'" in secrets["network"].read_text()

"""The command line: what it prints where, and how it ends."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import cryomamba.client
from cryomamba import Client
from cryomamba.commands import build_app, run
from cryomamba.commands.failures import describe
from cryomamba.commands.mounts import Mount, wanted
from cryomamba.commands.segment import parse_folds, parse_voxel_size
from cryomamba.errors import ApiError, CryoMambaError

EXAMPLE = Path(__file__).parents[2] / "data" / "EMD-3197.map"


@pytest.fixture
def invoke() -> Callable[..., Any]:
    app = build_app([])
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_version_is_printed(invoke: Callable[..., Any]) -> None:
    result = invoke("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("cryomamba 1.")


def test_wrong_usage_ends_with_2(invoke: Callable[..., Any]) -> None:
    assert invoke("segment").exit_code == 2
    assert invoke("no-such-command").exit_code == 2
    assert invoke("demo", "--shape", "64,128").exit_code == 2
    assert invoke("segment", EXAMPLE, "-m", "demo", "-o", "out", "--step-size", "2").exit_code == 2


def test_volume_shows_the_header_of_a_real_map(invoke: Callable[..., Any]) -> None:
    result = invoke("volume", EXAMPLE)

    assert result.exit_code == 0
    for fact in ("20 x 20 x 20 voxels", "1.14 x 1.14 x 1.14 nm", "float32", "little-endian", "-2, 0, 0"):
        assert fact in result.stdout


def test_volume_tells_what_is_wrong_with_a_file_and_what_to_do(invoke: Callable[..., Any], tmp_path: Path) -> None:
    cut = tmp_path / "cut.mrc"
    cut.write_bytes(EXAMPLE.read_bytes()[:2000])

    result = invoke("volume", cut)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "(field: size)" in result.stderr
    assert "Hint: " in result.stderr


def test_volume_of_a_missing_file_is_one_message(invoke: Callable[..., Any]) -> None:
    result = invoke("volume", "nowhere.mrc")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nowhere.mrc cannot be read")
    assert "Traceback" not in result.stderr


@pytest.fixture
def memory_client(monkeypatch: pytest.MonkeyPatch, make_client: Callable[..., Client]) -> list[tuple[str, str]]:
    """Lets `segment` talk to the server in memory; returns the URLs and tokens that it asked for."""
    asked: list[tuple[str, str]] = []

    def make(url: str, token: str) -> Client:
        asked.append((url, token))
        return make_client("http://127.0.0.1:1")

    monkeypatch.setattr(cryomamba.client, "Client", make)
    return asked


def test_segment_prints_the_statistics_and_where_the_files_are(
    invoke: Callable[..., Any],
    memory_client: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    server: Any,
    results: dict[str, bytes],
    volume: Path,
    tmp_path: Path,
) -> None:
    server.files = results
    server.job |= {"status": "completed", "artifacts": server.artifacts()}
    monkeypatch.setenv("CRYOMAMBA_TOKEN", "from-the-environment")
    out = tmp_path / "out"

    result = invoke("segment", volume, "--model", "demo", "-o", out, "--url", "http://host:1", "--folds", "0,2")

    assert result.exit_code == 0, result.stderr
    for cell in ("membrane", "24", "59", "101"):
        assert cell in result.stdout
    assert str(out / "segmentation.mrc") in result.stdout
    assert str(out / "overview.png") in result.stdout
    assert (out / "overview.png").exists()
    assert memory_client == [("http://host:1", "from-the-environment")]
    assert server.body("/v1/jobs")["params"] == {"folds": [0, 2]}


@pytest.mark.usefixtures("memory_client")
def test_segment_stopped_with_ctrl_c_ends_with_130_and_cancels(
    invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, server: Any, volume: Path, tmp_path: Path
) -> None:
    def interrupted(_client: Client, _job_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", interrupted)

    result = invoke("segment", volume, "-m", "demo", "-o", tmp_path / "out", "--token", "t")

    assert result.exit_code == 130
    assert server.paths("DELETE") == ["/v1/jobs/job_abc"]


def test_segment_without_a_token_says_where_to_get_one(
    invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRYOMAMBA_TOKEN", raising=False)

    result = invoke("segment", EXAMPLE, "-m", "demo", "-o", "out")

    assert result.exit_code == 1
    assert "CRYOMAMBA_TOKEN" in result.stderr


def test_segment_without_a_server_says_how_to_start_one(invoke: Callable[..., Any], tmp_path: Path) -> None:
    arguments = ("-m", "demo", "-o", tmp_path / "out", "--url", "http://127.0.0.1:1", "--token", "s3cret")

    result = invoke("segment", EXAMPLE, *arguments)

    assert result.exit_code == 1
    assert "http://127.0.0.1:1" in result.stderr
    assert "cryomamba serve" in result.stderr
    assert "s3cret" not in result.output


@pytest.mark.parametrize(
    ("text", "folds"), [("all", "all"), ("fold_all", ["all"]), ("0", [0]), ("0,2", [0, 2]), ("0, 2", [0, 2])]
)
def test_folds_are_read(text: str, folds: object) -> None:
    assert parse_folds(text) == folds


@pytest.mark.parametrize("text", ["", "0,", "-1", "some"])
def test_what_are_no_folds_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_folds(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1.348", (1.348,) * 3), ("1,2,3.5", (1.0, 2.0, 3.5)), ("1 2 3", (1.0, 2.0, 3.0)), (None, None)]
)
def test_a_voxel_size_is_one_number_or_three(text: str | None, size: object) -> None:
    assert parse_voxel_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "1,2", "nan", "inf", "-1", "1 nm", "1,2,3,4"])
def test_what_is_no_voxel_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_voxel_size(text)


def single_command() -> typer.Typer:
    app = typer.Typer()
    app.command()(lambda: typer.echo("served"))
    return app


def group() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("create")(lambda: typer.echo("created"))
    return app


def missing() -> object:
    raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")


def test_commands_of_other_packages_are_mounted_alone_or_as_groups() -> None:
    app = build_app([Mount("serve", "a.b", single_command), Mount("token", "a.b", group)])

    assert CliRunner().invoke(app, ["serve"]).stdout == "served\n"
    assert CliRunner().invoke(app, ["token", "create"]).stdout == "created\n"


def test_a_command_that_is_not_installed_is_shown_and_says_what_to_install() -> None:
    app = build_app([Mount("serve", "cryomamba_apiserver.commands.serve", missing), Mount("token", "a", group)])

    listed = CliRunner().invoke(app, ["--help"])
    asked = CliRunner().invoke(app, ["serve", "--port", "0"])

    assert "serve" in listed.stdout
    assert asked.exit_code == 1
    assert "needs fastapi" in asked.stderr
    assert "pip install 'cryomamba[apiserver]'" in asked.stderr
    assert CliRunner().invoke(app, ["token", "create"]).exit_code == 0


def test_a_module_that_is_missed_only_while_a_command_runs_is_told_the_same_way() -> None:
    app = typer.Typer()
    app.command()(missing)

    result = CliRunner().invoke(build_app([Mount("serve", "a.b", lambda: app)]), ["serve"])

    assert result.exit_code == 1
    assert "Error: fastapi is not installed" in result.stderr


def test_a_bug_is_not_dressed_up_as_a_failure() -> None:
    app = typer.Typer()

    @app.command()
    def broken() -> None:
        raise ZeroDivisionError

    result = CliRunner().invoke(build_app([Mount("serve", "a.b", lambda: app)]), ["serve"])

    assert isinstance(result.exception, ZeroDivisionError)


def test_other_packages_are_loaded_only_when_they_are_asked_for() -> None:
    mounts = [Mount(name, "a.b", single_command) for name in ("token", "serve")]

    def loaded(*arguments: str) -> list[str]:
        return [mount.name for mount in wanted(mounts, arguments, {"volume"})]

    assert loaded("volume", "x.mrc") == []
    assert loaded("serve", "--port", "0") == ["serve"]
    assert loaded("--help") == loaded() == loaded("unknown") == ["serve", "token"]


def test_the_exit_code_comes_back_from_a_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["volume", str(EXAMPLE)]) == 0
    assert run(["volume", "nowhere.mrc"]) == 1
    assert run(["volume"]) == 2
    assert "nowhere.mrc" in capsys.readouterr().err


def test_help_needs_no_array_picture_or_http_library() -> None:
    program = (
        "import sys; from cryomamba.commands import build_app; build_app([]);"
        "print(sorted({'numpy', 'PIL', 'httpx', 'websockets', 'mrcfile', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_failure_of_the_sdk_has_a_hint_line_only_if_there_is_a_hint() -> None:
    assert describe(CryoMambaError("It broke.", hint="Mend it.")) == "Error: It broke.\nHint: Mend it.\n"
    assert describe(CryoMambaError("It broke.")) == "Error: It broke.\n"
    assert describe(PermissionError(13, "Permission denied", "out")) == "Error: out: Permission denied\n"
    assert describe(ZeroDivisionError()) is None


def test_a_refusal_by_the_server_names_the_field_too() -> None:
    refused = ApiError("VALIDATION_ERROR", "Too large.", hint="Crop it.", details={"field": "nx"}, status=422)

    assert describe(refused) == "Error: Too large. (field: nx)\nHint: Crop it.\n"

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import buildah, cli, commands, kernel, kind, local, packages, product
from devcluster.buildah import Buildah
from devcluster.builders import Order
from devcluster.docker import Docker
from devcluster.errors import ClusterError


class Calls:
    """Stands in for programs: notes how they are called, and answers what it was told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.answers: dict[str, str] = {}
        self.failing: set[str] = set()

    def attempt(self, argv, **_options) -> subprocess.CompletedProcess[str]:
        line = " ".join(map(str, argv))
        self.lines.append(line)
        found = next((answer for words, answer in self.answers.items() if words in line), "")
        code = int(any(words in line for words in self.failing))
        return subprocess.CompletedProcess(argv, code, stdout=found, stderr="")

    def with_words(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(commands, "attempt", calls.attempt)
    return calls


@pytest.fixture
def as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildah.os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages, "ensure", lambda _wanted, **_root: None)
    monkeypatch.setattr(kernel, "unmount_below", lambda _folder: None)


ORDER = Order(
    Path("/context"),
    "server-image/Dockerfile",
    "localhost/cryomamba-server:key",
    {"VERSION": "1.0.0"},
    {"network": Path("/private/network")},
)
OPTIONS = "--build-arg VERSION=1.0.0 --secret id=network,src=/private/network"


def test_docker_builds_on_the_public_base(calls: Calls) -> None:
    Docker().build(ORDER)

    (line,) = calls.lines
    assert line == (
        "docker build --file /context/server-image/Dockerfile --build-arg BASE=python:3.11-slim-bookworm "
        f"{OPTIONS} --tag localhost/cryomamba-server:key /context"
    )


def test_docker_loses_older_images_of_the_same_name_only(calls: Calls) -> None:
    calls.answers["images"] = "localhost/cryomamba-server:old\nlocalhost/cryomamba-server:key\npostgres:16\n"

    Docker().tidy(["localhost/cryomamba-server:key"])

    assert calls.with_words("rmi") == ["docker rmi localhost/cryomamba-server:old"]


def test_buildah_makes_its_base_once(calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(buildah.base_image, "write_root", lambda archive: (made.append(archive), archive.touch()))
    builder = Buildah(tmp_path, tmp_path / "uv")
    (tmp_path / "scratch").mkdir()
    calls.failing.add("inspect")

    builder.build(ORDER)
    calls.failing.clear()
    builder.build(ORDER)

    assert len(made) == 1
    assert len(calls.with_words(f"commit --quiet --rm  {buildah.BASE}")) == 1
    assert all(f"BASE={buildah.BASE}" in line for line in calls.with_words(" bud "))


def test_buildah_takes_a_base_from_a_registry_as_it_is_told(calls: Calls, tmp_path: Path) -> None:
    builder = Buildah(tmp_path, tmp_path / "uv", "registry.example/python:3.11")

    builder.build(ORDER)

    assert calls.with_words("inspect") == []
    assert all("BASE=registry.example/python:3.11" in line for line in calls.lines)
    assert builder.base_key == "registry.example/python:3.11"


def test_what_buildah_keeps_for_the_next_build_is_not_tidied_away(calls: Calls, tmp_path: Path) -> None:
    kept = ["localhost/cryomamba-server:key", "localhost/cryomamba-server-requirements:key", buildah.BASE]
    old = ["localhost/cryomamba-server:old", "localhost/cryomamba-server-requirements:old"]
    calls.answers["images --format"] = "\n".join([*kept, *old, "localhost/other:1"])

    Buildah(tmp_path, tmp_path / "uv").tidy(["localhost/cryomamba-server:key"])

    (removal, pruning) = calls.with_words("rmi")
    assert removal.split("rmi ")[1].split() == old
    assert pruning.endswith("rmi --prune")


@pytest.mark.usefixtures("as_root")
def test_builds_share_the_user_s_wheels_and_leave_nothing_of_killed_ones(calls: Calls, tmp_path: Path) -> None:
    left = tmp_path / "images/scratch/storage123"
    left.mkdir(parents=True)

    with Buildah(tmp_path / "images", tmp_path / "uv").session():
        shared = tmp_path / "images/scratch/buildah-cache" / buildah.UV_CACHE_ID
        assert shared.resolve() == tmp_path / "uv"
    with Buildah(tmp_path / "images", tmp_path / "uv").session():
        pass

    assert not left.exists()
    assert (tmp_path / "uv").is_dir()
    assert len(calls.with_words("rm --all")) == 2


@pytest.mark.usefixtures("as_root")
def test_nothing_stays_mounted_when_a_build_fails(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted: list[Path] = []
    monkeypatch.setattr(kernel, "unmount_below", unmounted.append)
    calls.failing.add(" bud ")
    builder = Buildah(tmp_path / "images", tmp_path / "uv", "base")

    with pytest.raises(ClusterError, match="bud"), builder.session():
        builder.build(ORDER)

    # Before, what others left, and afterwards.
    assert unmounted == [tmp_path / "images", buildah.RUN] * 2


@pytest.mark.usefixtures("as_root", "calls")
def test_mounts_are_found_where_the_cache_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmounted: list[Path] = []
    monkeypatch.setattr(kernel, "unmount_below", unmounted.append)
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")

    with Buildah(tmp_path / "cache", tmp_path / "uv").session():
        pass

    assert set(unmounted) == {tmp_path / "disk", buildah.RUN}


def test_without_root_and_docker_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildah.os, "geteuid", lambda: 1000)

    with pytest.raises(ClusterError, match="needs Docker or root"), Buildah(tmp_path, tmp_path / "uv").session():
        pass


class RememberingBuilder:
    """Builds nothing and knows what it was asked to."""

    base_key = "base"

    def __init__(self) -> None:
        self.built: dict[str, Order] = {}
        self.tags: dict[str, str] = {}
        self.kept: list[str] = []
        self.secrets: dict[str, str] = {}

    @contextmanager
    def session(self) -> Iterator[None]:
        yield

    def has(self, reference: str) -> bool:
        return reference in self.built

    def build(self, order: Order) -> None:
        self.built[order.reference] = order
        assert (order.context / order.dockerfile).exists()
        self.secrets[order.reference] = order.secrets["network"].read_text()

    def tag(self, reference: str, other: str) -> None:
        self.tags[other] = reference

    def tidy(self, keep) -> None:
        self.kept = list(keep)


def built(builder: RememberingBuilder, folder: Path) -> dict[str, str]:
    with product.session(builder, folder) as place:
        return product.build(builder, place)


def test_only_what_is_missing_is_built(tmp_path: Path) -> None:
    builder = RememberingBuilder()

    first = built(builder, tmp_path)
    builder.built.pop(first["cryomamba-inference"])
    before = dict(builder.built)
    second = built(builder, tmp_path)

    assert first == second == product.references(builder)
    assert set(builder.built) - set(before) == {second["cryomamba-inference"]}
    assert builder.tags["localhost/cryomamba-server:1.0.0"] == first["cryomamba-server"]
    assert set(builder.kept) == {*first.values(), *builder.tags}


def test_a_build_says_where_the_sources_are_from(tmp_path: Path) -> None:
    builder = RememberingBuilder()

    built(builder, tmp_path)

    for order in builder.built.values():
        assert order.arguments["VERSION"] == "1.0.0"
        assert set(order.arguments) == {"VERSION", "REVISION", "SOURCE"}


def test_what_a_killed_build_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "unfinished-1" / "context").mkdir(parents=True)

    built(RememberingBuilder(), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_label_shows_no_credentials() -> None:
    assert product.without_credentials("https://user:word@git.example/a/b") == "https://git.example/a/b"
    assert product.without_credentials("git@git.example:a/b") == "git@git.example:a/b"


def test_where_docker_is_kind_takes_the_images_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kind, "docker_answers", lambda: True)
    monkeypatch.setattr(cli, "_start", lambda *_words, **_with_node: None)
    monkeypatch.setattr(cli, "_down", lambda *_words: None)
    monkeypatch.setattr(product, "build", lambda builder, _folder: {"cryomamba-server": type(builder).__name__})
    monkeypatch.setattr(kind, "load_images", lambda _layout, references: loaded.extend(references))

    assert cli.main(["load-images"]) == 0

    assert loaded == ["Docker"]
    assert '"cryomamba-server": "Docker"' in capsys.readouterr().out


def test_a_cluster_that_was_started_for_the_images_goes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kind, "docker_answers", lambda: False)
    monkeypatch.setattr(cli, "_start", lambda *_words, with_node: steps.append(f"up with node: {with_node}"))
    monkeypatch.setattr(local, "load_product", lambda *_words: steps.append("load") or {})
    monkeypatch.setattr(cli, "_down", lambda *_words: steps.append("down"))

    assert cli.main(["load-images"]) == 0

    assert steps == ["up with node: True", "load", "down"]

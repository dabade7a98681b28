from pathlib import Path

import pytest

from devcluster import recipes
from devcluster.recipes import INFERENCE, RECIPES, ROOT, SERVER


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The context of the images, to be changed."""
    recipes.copy_context(tmp_path / "context")
    return tmp_path / "context"


def test_docker_is_let_through_exactly_what_images_are_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert tuple(line.removeprefix("!") for line in lines if line.startswith("!")) == recipes.CONTEXT


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_dockerfile_copies_nothing_that_is_not_in_the_context(recipe: recipes.Recipe) -> None:
    copied = [
        word
        for line in (ROOT / recipe.dockerfile).read_text().splitlines()
        if line.startswith("COPY ") and not line.startswith("COPY --from")
        for word in line.split()[1:-1]
    ]

    assert set(copied) == set(recipes.CONTEXT)


def test_a_copy_of_the_context_has_the_key_of_the_original(copy: Path) -> None:
    assert recipes.key(SERVER, "base", copy) == recipes.key(SERVER, "base")


@pytest.mark.parametrize("name", ["constraints.txt", "operator/cryomamba_operator/names.py", ".dockerignore"])
def test_what_an_image_is_built_from_changes_its_key(copy: Path, name: str) -> None:
    before = recipes.key(INFERENCE, "base", copy)

    (copy / name).write_text("other")

    assert recipes.key(INFERENCE, "base", copy) != before


def test_another_image_s_dockerfile_does_not_change_the_key(copy: Path) -> None:
    before = recipes.key(SERVER, "base", copy)

    (copy / INFERENCE.dockerfile).write_text("other")

    assert recipes.key(SERVER, "base", copy) == before


def test_another_base_changes_the_key() -> None:
    assert recipes.key(SERVER, "base", ROOT) != recipes.key(SERVER, "other base", ROOT)


def test_byte_code_does_not_change_the_key(copy: Path) -> None:
    before = recipes.key(SERVER, "base", copy)
    folder = copy / "crds/cryomamba_crds/__pycache__"
    folder.mkdir()
    (folder / "pod.cpython-311.pyc").write_bytes(b"code")

    assert recipes.key(SERVER, "base", copy) == before


def test_uv_is_the_same_in_images_and_in_the_makefile() -> None:
    (pinned,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("UV_VERSION")]

    assert f"uv=={pinned.split()[-1]}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_an_image_s_last_layer_is_our_code_and_it_runs_as_nobody_in_particular(recipe: recipes.Recipe) -> None:
    lines = (ROOT / recipe.dockerfile).read_text().splitlines()

    steps = [line for line in lines if line.split(" ")[0] in ("FROM", "COPY", "RUN", "ADD")]
    assert steps[-1] == "COPY --from=code /opt/cryomamba /opt/cryomamba"
    assert "USER 65532:65532" in lines


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("label", ["title", "description", "version", "revision", "source", "licenses"])
def test_an_image_says_what_it_is(recipe: recipes.Recipe, label: str) -> None:
    assert f"org.opencontainers.image.{label}=" in (ROOT / recipe.dockerfile).read_text()


def test_the_runner_s_image_runs_the_pod_s_job() -> None:
    last = (ROOT / INFERENCE.dockerfile).read_text().splitlines()[-1]

    assert last == 'ENTRYPOINT ["/opt/cryomamba/bin/python", "-m", "cryomamba_inference", "pod"]'

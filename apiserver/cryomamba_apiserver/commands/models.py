"""`cryomamba models`: the catalogue of models of this machine's server."""

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cryomamba_apiserver.commands.options import DataDir

if TYPE_CHECKING:
    from cryomamba_apiserver.models.catalogue import Catalogue

app = typer.Typer(help="Add, show and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What jobs call the model.")]


@app.callback()
def models() -> None:
    """Add, show and remove models."""


@app.command("list")
def list_models(data_dir: DataDir = None) -> None:
    """Print the names of the models that there are."""
    for name in asyncio.run(_catalogue(data_dir).names()):
        typer.echo(name)


@app.command()
def show(name: Name, data_dir: DataDir = None) -> None:
    """Print a model's card."""
    typer.echo(asyncio.run(_catalogue(data_dir).card(name)).model_dump_json(indent=2))


@app.command()
def remove(name: Name, data_dir: DataDir = None) -> None:
    """Take a model out of the catalogue."""
    asyncio.run(_catalogue(data_dir).remove(name))
    typer.echo(f"Removed {name}.")


@app.command()
def push(
    folder: Annotated[
        Path,
        typer.Argument(
            help="nnU-Net's result folder: the one with plans.json and fold_…", exists=True, file_okay=False
        ),
    ],
    name: Annotated[str, typer.Option(help="What jobs will call the model.")],
    data_dir: DataDir = None,
    spacing_policy: Annotated[
        Literal["auto", "ignore", "angstrom", "nm"],
        typer.Option(help="What the plan's spacing means; auto: ignore it where it is 1, 1, 1, else Å."),
    ] = "auto",
    contrast: Annotated[
        Literal["dark", "bright"], typer.Option(help="How objects look in the volumes that the model was trained on.")
    ] = "dark",
) -> None:
    """Add a trained nnU-Net v2 model, or replace it."""
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.models.cards import draft_card  # noqa: PLC0415
    from cryomamba_crds.model_gate import inspect_model, pack_model  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "model.zip"
        digest = pack_model(folder, archive)
        card = draft_card(inspect_model(archive), digest, spacing_policy, contrast)
        asyncio.run(_catalogue(data_dir).push(name, archive, card))
    typer.echo(f"Added {name}: {', '.join(f'{label.id} {label.name}' for label in card.labels)}")


def _catalogue(data_dir: Path | None) -> "Catalogue":
    from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore  # noqa: PLC0415
    from cryomamba_apiserver.models.catalogue import Catalogue  # noqa: PLC0415
    from cryomamba_apiserver.settings import default_data_dir  # noqa: PLC0415

    return Catalogue(DirectoryObjectStore((data_dir or default_data_dir()) / "store"))

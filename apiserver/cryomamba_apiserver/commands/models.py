"""`cryomamba models`: the catalogue of models of this machine's server."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from cryomamba_apiserver.commands.options import DataDir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryomamba_apiserver.models.catalogue import Catalogue

_T = TypeVar("_T")

app = typer.Typer(help="Add, show and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What jobs call the model.")]


@app.callback()
def models() -> None:
    """Add, show and remove models."""


@app.command("list")
def list_models(data_dir: DataDir = None) -> None:
    """Print the names of the models that there are."""
    for name in _with_catalogue(data_dir, lambda catalogue: catalogue.names()):
        typer.echo(name)


@app.command()
def show(name: Name, data_dir: DataDir = None) -> None:
    """Print a model's card."""
    typer.echo(_with_catalogue(data_dir, lambda catalogue: catalogue.card(name)).model_dump_json(indent=2))


@app.command()
def remove(name: Name, data_dir: DataDir = None) -> None:
    """Take a model out of the catalogue."""
    _with_catalogue(data_dir, lambda catalogue: catalogue.remove(name))
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
    *,
    cpu_fallback: Annotated[
        bool,
        typer.Option(
            "--cpu-fallback", help="Where the GPU's memory does not hold it, go on on the CPU, many times as slow."
        ),
    ] = False,
) -> None:
    """Add a trained nnU-Net v2 model, or replace it."""
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.models.cards import draft_card  # noqa: PLC0415
    from cryomamba_crds.model_gate import inspect_model, pack_model  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "model.zip"
        digest = pack_model(folder, archive)
        card = draft_card(inspect_model(archive), digest, spacing_policy, contrast, cpu_fallback=cpu_fallback)
        _with_catalogue(data_dir, lambda catalogue: catalogue.push(name, archive, card))
    typer.echo(f"Added {name}: {', '.join(f'{label.id} {label.name}' for label in card.labels)}")


def _with_catalogue(data_dir: Path | None, do: "Callable[[Catalogue], Awaitable[_T]]") -> _T:
    """Do something with the catalogue of the store that the server's settings name."""
    from cryomamba_apiserver.adapters.opening import object_store, store_failure  # noqa: PLC0415
    from cryomamba_apiserver.models.catalogue import Catalogue  # noqa: PLC0415
    from cryomamba_apiserver.ports.object_store import StoreUnavailableError  # noqa: PLC0415
    from cryomamba_apiserver.settings import read_settings  # noqa: PLC0415

    settings = read_settings(os.environ, **({} if data_dir is None else {"data_dir": data_dir}))

    async def work() -> _T:
        async with object_store(settings) as objects:
            return await do(Catalogue(objects))

    try:
        return asyncio.run(work())
    except StoreUnavailableError as error:
        raise store_failure(error) from None

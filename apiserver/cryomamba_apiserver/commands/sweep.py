"""`cryomamba-apiserver sweep`: removes what nothing needs any more, beside a running server or without one."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from cryomamba_apiserver.commands.options import DataDir

if TYPE_CHECKING:
    from cryomamba_apiserver.settings import Settings
    from cryomamba_apiserver.sweep.decide import Removal


def sweep(
    *,
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove expired uploads, what no record names any more, and what has been kept long enough.

    Safe beside a running server, twice at once, and to be stopped. With CRYOMAMBA_KUBERNETES_NAMESPACE, the jobs are
    the cluster's. Settings: CRYOMAMBA_SWEEP_GRACE_SECONDS, CRYOMAMBA_KEEP_FILES_DAYS, CRYOMAMBA_KEEP_JOBS_DAYS; all are
    in docs/settings.md.
    """
    from cryomamba_apiserver.adapters.opening import store_failure  # noqa: PLC0415 - --help does without
    from cryomamba_apiserver.ports.job_store import JobsUnavailableError  # noqa: PLC0415
    from cryomamba_apiserver.ports.object_store import StoreUnavailableError  # noqa: PLC0415
    from cryomamba_apiserver.settings import SettingsError, read_settings  # noqa: PLC0415
    from cryomamba_crds.failures import FailureError  # noqa: PLC0415

    try:
        settings = read_settings(os.environ, **({"data_dir": data_dir} if data_dir else {}))
    except SettingsError as error:
        typer.echo(f"Error: {error}\nHint: {error.failure.hint}", err=True)
        raise typer.Exit(2) from None
    if settings.kubernetes_namespace is None and not (settings.data_dir / "jobs.sqlite").is_file():
        typer.echo(
            f"Error: there is no table of jobs in {settings.data_dir}; without it every result would seem left over.\n"
            "Hint: name the server's directory with --data-dir.",
            err=True,
        )
        raise typer.Exit(1)
    try:
        asyncio.run(_sweep(settings, dry_run=dry_run))
    except JobsUnavailableError as error:
        typer.echo(f"Error: {error}\nHint: {error.hint}", err=True)
        raise typer.Exit(1) from None
    except FailureError as error:
        typer.echo(f"Error: {error.failure.message}\nHint: {error.failure.hint}", err=True)
        raise typer.Exit(1) from None
    except StoreUnavailableError as error:
        failure = store_failure(error).failure
        typer.echo(f"Error: {failure.message}\nHint: {failure.hint}", err=True)
        raise typer.Exit(1) from None


async def _sweep(settings: "Settings", *, dry_run: bool) -> None:
    from cryomamba_apiserver.adapters.opening import object_store  # noqa: PLC0415 - see above
    from cryomamba_apiserver.app import utc_now  # noqa: PLC0415
    from cryomamba_apiserver.profiles import job_references  # noqa: PLC0415
    from cryomamba_apiserver.sweep.run import Sweep, sweep_rules  # noqa: PLC0415

    async with object_store(settings) as objects, job_references(settings, objects) as references:
        data_dir = settings.data_dir if settings.kubernetes_namespace is None else None
        sweeper = Sweep(objects, references, sweep_rules(settings), utc_now, data_dir)
        if dry_run:
            _, removal = await sweeper.look()
            _show(removal)
            return
        swept = await sweeper.run()
    typer.echo(
        f"Removed {swept.objects} objects; ended {swept.uploads} uploads, {swept.files} files, {swept.jobs} jobs; "
        f"{swept.leftovers} leftovers of killed processes."
    )
    if swept.failed:
        typer.echo(f"Error: {swept.failed} could not be removed; see above.\nHint: run the sweep again.", err=True)
        raise typer.Exit(1)


def _show(removal: "Removal") -> None:
    for session in removal.expire:
        typer.echo(f"expire upload {session.upload_id}")
    for upload in removal.uploads:
        typer.echo(f"drop parts of {upload}")
    for file_id in removal.retire:
        typer.echo(f"remove file {file_id}")
    for job_id in removal.jobs:
        typer.echo(f"remove job {job_id}")
    for key in removal.objects:
        typer.echo(f"delete {key}")

"""`cryomamba segment`: a file of one's own through a running server."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cryomamba_crds.task import Folds, VoxelSize

_NUMBERS = re.compile(r"[\s,]+")


def segment(  # noqa: PLR0913 - the options of the command
    *,
    file: Annotated[Path, typer.Argument(help="MRC or NIfTI file.", metavar="FILE", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="A model that the server has.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the results; files of an earlier run are replaced.", show_default=False
        ),
    ],
    url: Annotated[str, typer.Option(envvar="CRYOMAMBA_URL", help="Where the server is.")] = "http://localhost:8000",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CRYOMAMBA_TOKEN",
            help="Token for the server. Other users of this machine can see options; prefer the variable.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[str, typer.Option(help="`all`, fold numbers such as `0,2`, or `fold_all`.")] = "all",
    step_size: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Distance of neighbouring tiles as a fraction of the patch.")
    ] = 0.5,
    no_mirroring: Annotated[
        bool, typer.Option("--no-mirroring", help="Up to eight times as fast, a little less exact.")
    ] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Fetch the probabilities too; large.")
    ] = False,
    object_table: Annotated[
        bool, typer.Option("--object-table", help="Fetch a table of all connected components too, objects.csv.")
    ] = False,
    spacing_policy: Annotated[
        Literal["ignore", "angstrom", "nm"] | None,
        typer.Option(help="How the voxel size meets the model's; the model says by default.", show_default=False),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(help="In nm, one number or X,Y,Z; instead of the header's.", metavar="NM", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with an earlier upload of the same file that broke off.",
            metavar="UPLOAD_ID",
            show_default=False,
        ),
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Negate the intensities, for contrast opposite to the model's.")
    ] = False,
) -> None:
    """Segment a volume on a running server and fetch the results. Ctrl-C cancels the job."""
    chosen_folds, chosen_voxel_size = parse_folds(folds), parse_voxel_size(voxel_size)

    from cryomamba.client import Client  # noqa: PLC0415 - `cryomamba --help` does without
    from cryomamba.commands.terminal import LiveProgress, results_console, show_result  # noqa: PLC0415
    from cryomamba.errors import CryoMambaError  # noqa: PLC0415
    from cryomamba.interruption import stoppable  # noqa: PLC0415
    from cryomamba.models import JobParams  # noqa: PLC0415
    from cryomamba.segmentation import SegmentationRequest, run_segmentation  # noqa: PLC0415

    if not token:
        raise CryoMambaError(
            "no token was given",
            hint="`cryomamba serve` prints one, `cryomamba token create` makes one; put it in CRYOMAMBA_TOKEN.",
        )
    params = JobParams(
        folds=chosen_folds,
        step_size=step_size,
        disable_tta=no_mirroring,
        save_probabilities=save_probabilities,
        object_table=object_table,
        spacing_policy=spacing_policy,
        voxel_size=chosen_voxel_size,
        invert=invert,
    )
    with stoppable(), Client(url, token) as client, LiveProgress() as live:
        result = run_segmentation(client, SegmentationRequest(file, model, output, params, resume), live)
    show_result(results_console(), result)


def parse_folds(text: str) -> "Folds":
    """Read `all`, `fold_all`, or numbers with commas between them.

    Raises:
        typer.BadParameter: It is none of these.
    """
    if text == "all":
        return "all"
    if text == "fold_all":
        return ["all"]
    numbers = _NUMBERS.split(text.strip())
    if not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter(f"{text!r} is not `all`, `fold_all`, or numbers such as `0,2`", param_hint="--folds")
    return [int(number) for number in numbers]


def parse_voxel_size(text: str | None) -> "VoxelSize | None":
    """Read one number, or three for X, Y and Z, in nm.

    Raises:
        typer.BadParameter: These are not one or three positive numbers.
    """
    if text is None:
        return None
    try:
        numbers = [float(number) for number in _NUMBERS.split(text.strip())]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 < number < float("inf") for number in numbers):
        raise typer.BadParameter(
            f"{text!r} is not a voxel size in nm, such as `1.348` or `1.348,1.348,2.0`", param_hint="--voxel-size"
        )
    x, y, z = numbers if len(numbers) > 1 else numbers * 3
    return x, y, z

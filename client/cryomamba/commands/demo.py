"""`cryomamba demo`: everything at once on this machine, with a phantom whose truth is known."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cryomamba.phantom import Phantom

_MODEL = "demo"
_VOLUME, _TRUTH = "phantom.mrc", "truth.mrc"
_SMALLEST_SIDE = 32
_NM_ANGSTROM = 10


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; files of an earlier run are replaced.")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option(min=0, help="Which phantom.")] = 1,
    shape: Annotated[str, typer.Option(help="Voxels of the phantom along Z,Y,X.")] = "48,128,128",
) -> None:
    """Start a server, segment a synthetic tomogram with it, compare with the truth, and leave only the results."""
    size = parse_shape(shape)

    from tempfile import TemporaryDirectory  # noqa: PLC0415 - `cryomamba --help` does without all of these

    from cryomamba.client import Client  # noqa: PLC0415
    from cryomamba.commands.terminal import LiveProgress, results_console, show_result  # noqa: PLC0415
    from cryomamba.interruption import stoppable  # noqa: PLC0415
    from cryomamba.local_server import issue_token, local_server, serve_command  # noqa: PLC0415
    from cryomamba.phantom import make_phantom  # noqa: PLC0415
    from cryomamba.segmentation import SegmentationRequest, run_segmentation  # noqa: PLC0415

    with stoppable(), TemporaryDirectory(prefix="cryomamba-demo-") as data_dir, LiveProgress() as live:
        live.note("Starting a server ...")
        with local_server(serve_command(Path(data_dir))) as url:
            live.note(f"The server listens at {url}")
            token = issue_token(Path(data_dir))
            live.note(f"Making a phantom of {' x '.join(map(str, size))} voxels (Z, Y, X), seed {seed} ...")
            phantom = make_phantom(seed, size)
            volume = write_phantom(phantom, output)
            with Client(url, token) as client:
                result = run_segmentation(client, SegmentationRequest(volume, _MODEL, output), live)
    console = results_console()
    show_result(console, result)
    for name, what in ((_VOLUME, "the synthetic tomogram"), (_TRUTH, "its true labels")):
        console.print(f"  {output / name} ({what})", soft_wrap=True)
    results_console().print(
        dice_line(phantom, result.labels, {int(n): e.name for n, e in result.statistics.labels.items()})
    )


def parse_shape(text: str) -> tuple[int, int, int]:
    """Read three lengths along Z, Y, X.

    Raises:
        typer.BadParameter: These are not three numbers of at least 32.
    """
    numbers = [int(number) for number in re.split(r"[\sx,]+", text.strip()) if number.isdecimal()]
    if len(numbers) != 3 or min(numbers) < _SMALLEST_SIDE:  # noqa: PLR2004 - a volume has three axes
        raise typer.BadParameter(
            f"{text!r} is not three lengths Z,Y,X of at least {_SMALLEST_SIDE}, such as `64,128,128`",
            param_hint="--shape",
        )
    z, y, x = numbers
    return z, y, x


def write_phantom(phantom: "Phantom", folder: Path) -> Path:
    """Write a phantom as an MRC file, and its truth beside it; return the file."""
    import mrcfile  # noqa: PLC0415 - only the demo needs them
    import numpy as np  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    volume = folder / _VOLUME
    for path, voxels in ((volume, phantom.density), (folder / _TRUTH, phantom.labels.astype(np.int8))):
        with mrcfile.new(path, voxels, overwrite=True) as file:
            file.voxel_size = phantom.voxel_size_nm * _NM_ANGSTROM
    return volume


def dice_line(phantom: "Phantom", labels: Path, names: dict[int, str]) -> str:
    """Return how well every label agrees with the phantom's truth, in words."""
    from cryomamba.agreement import dice  # noqa: PLC0415 - only the demo needs them
    from cryomamba.planes import volume  # noqa: PLC0415

    found = volume(labels)
    scores = (f"{name} {dice(phantom.labels, found, number):.3f}" for number, name in sorted(names.items()) if number)
    return "Dice against the known truth: " + ", ".join(scores)

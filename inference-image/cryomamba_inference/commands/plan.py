"""`cryomamba plan`: what segmenting a volume would take, from its header and the model's plans."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer()


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="MRC or NIfTI file; only its header is read.", metavar="FILE")],
    model: Annotated[Path, typer.Option("--model", "-m", help="nnU-Net result folder, or a zip of one.")],
    *,
    device: Annotated[str, typer.Option(help="Where it would run: cpu or cuda.")] = "cpu",
    step_size: Annotated[float, typer.Option(min=0.1, max=1.0, help="Distance of tiles, as a share of a patch.")] = 0.5,
    save_probabilities: Annotated[bool, typer.Option(help="With an array a class.")] = False,
    spacing_policy: Annotated[str, typer.Option(help="ignore, angstrom or nm.")] = "ignore",
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how many tiles a volume takes with a model, and how much memory, before anything is loaded or uploaded."""
    # Imported here: `cryomamba --help` loads this module. None of them imports torch.
    from cryomamba_crds.failures import FailureCode, FailureError  # noqa: PLC0415
    from cryomamba_crds.model_gate import check_runnable, image_spacing, open_model  # noqa: PLC0415
    from cryomamba_crds.volumes import read_header  # noqa: PLC0415
    from cryomamba_inference.engine.interface import Options  # noqa: PLC0415
    from cryomamba_inference.engine.memory import available_memory  # noqa: PLC0415
    from cryomamba_inference.engine.planning import Setting, choose_batch, foresee  # noqa: PLC0415

    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"--device {device}: choose from cpu, cuda")
    if spacing_policy not in ("ignore", "angstrom", "nm"):
        raise typer.BadParameter(f"--spacing-policy {spacing_policy}: choose from ignore, angstrom, nm")
    if not model.exists():
        raise FailureError(
            FailureCode.NOT_FOUND,
            f"model: there is no {model}",
            hint="Name the folder that nnU-Net trained into (it holds plans.json and fold_0), or a zip of it.",
        )
    inspected = open_model(model)
    facts = inspected.facts
    check_runnable(facts)
    with file.open("rb") as stream:
        header = read_header(stream, file.stat().st_size)
    x, y, z = header.shape
    configuration = inspected.plans["configurations"][facts.configuration]
    where: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
    setting = Setting(where, len(facts.folds) or 1, choose_batch(configuration, where))
    policy: Any = spacing_policy
    options = Options(step_size=step_size, spacing_policy=policy, save_probabilities=save_probabilities)
    spacing = image_spacing(facts, policy, header.voxel_size_nm)
    outlook = foresee(facts, configuration, (z, y, x), spacing, options, setting)
    free = available_memory()
    if json_output:
        _print_json(outlook, setting, free)
    else:
        _print_table(file.name, outlook, setting, free)
    if free is not None and where == "cpu" and outlook.memory.host_bytes > free:
        raise typer.Exit(1)


def _print_json(outlook: Any, setting: Any, free: int | None) -> None:  # noqa: ANN401 - see `plan`
    import json  # noqa: PLC0415

    memory = outlook.memory
    typer.echo(
        json.dumps(
            {
                "engine": "nnunet" if outlook.route is None else "streaming",
                "because": outlook.because,
                "network_shape": list(outlook.seen[::-1]),
                "tiles": memory.tiles,
                "passes_at_once": setting.batch,
                "host_bytes": memory.host_bytes,
                "host": memory.host,
                "device_bytes": memory.device_bytes,
                "device": memory.device,
                "free_host_bytes": free,
            },
            indent=2,
        )
    )


def _print_table(name: str, outlook: Any, setting: Any, free: int | None) -> None:  # noqa: ANN401 - see `plan`
    memory = outlook.memory
    rows = {
        "engine": "streaming" if outlook.route is not None else f"nnU-Net's own: the model {outlook.because}",
        "network sees": " x ".join(str(edge) for edge in outlook.seen[::-1])
        + " voxels (X, Y, Z), less if zeros frame it",
        "tiles": f"{memory.tiles} over {setting.folds} fold{'s' * (setting.folds > 1)}, {setting.batch} at once",
        "main memory": _gigabytes(memory.host),
        **({"GPU memory": _gigabytes(memory.device)} if memory.device else {}),
        "free here": "unknown" if free is None else f"{free / 1e9:.2f} GB of main memory",
    }
    typer.echo(name)
    for label, text in rows.items():
        typer.echo(f"  {label:13} {text}")


def _gigabytes(parts: dict[str, int]) -> str:
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return f"{sum(parts.values()) / 1e9:.2f} GB: " + ", ".join(f"{name} {size / 1e9:.2f}" for name, size in largest)

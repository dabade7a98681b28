"""`cryomamba plan`: what segmenting a volume would take, from its header and the model's plans."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer()


@app.command()
def plan(  # noqa: PLR0913 - options of a command
    file: Annotated[Path, typer.Argument(help="MRC or NIfTI file; only its header is read.", metavar="FILE")],
    model: Annotated[Path, typer.Option("--model", "-m", help="nnU-Net result folder, or a zip of one.")],
    *,
    device: Annotated[str, typer.Option(help="Where it would run: cpu or cuda.")] = "cpu",
    device_memory: Annotated[
        float | None, typer.Option(min=0.0, help="GB free on the GPU; left out: what the first GPU here has free.")
    ] = None,
    cpu_fallback: Annotated[bool, typer.Option(help="As a model that was pushed with it.")] = False,
    step_size: Annotated[float, typer.Option(min=0.1, max=1.0, help="Distance of tiles, as a share of a patch.")] = 0.5,
    save_probabilities: Annotated[bool, typer.Option(help="With an array a class.")] = False,
    spacing_policy: Annotated[str, typer.Option(help="ignore, angstrom or nm.")] = "ignore",
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how many tiles a volume takes with a model, and how much memory, before anything is loaded or uploaded."""
    # Imported here: `cryomamba --help` loads this module. None of them imports torch.
    from cryomamba_crds.failures import FailureCode, FailureError  # noqa: PLC0415
    from cryomamba_crds.model_gate import check_channels, check_runnable, image_spacing, open_model  # noqa: PLC0415
    from cryomamba_crds.volumes import read_header  # noqa: PLC0415
    from cryomamba_inference.engine.fitting import Free, best_setting, fit  # noqa: PLC0415
    from cryomamba_inference.engine.interface import Options  # noqa: PLC0415
    from cryomamba_inference.engine.memory import available_memory  # noqa: PLC0415
    from cryomamba_inference.engine.planning import Setting, foresee  # noqa: PLC0415
    from cryomamba_inference.gpu import free_gpu_memory  # noqa: PLC0415

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
    check_channels(facts, header.channels)
    x, y, z = header.shape
    configuration = inspected.plans["configurations"][facts.configuration]
    where: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
    policy: Any = spacing_policy
    options = Options(step_size=step_size, spacing_policy=policy, save_probabilities=save_probabilities)
    spacing = image_spacing(facts, policy, header.voxel_size_nm)
    best = best_setting(facts, configuration, options, where, len(facts.folds) or 1)
    free = Free(available_memory(), _device_memory(device_memory, free_gpu_memory) if where == "cuda" else None)

    def foreseen(shape: tuple[int, int, int], setting: Setting) -> Any:  # noqa: ANN401 - see `_print_json`
        return foresee(facts, configuration, shape, spacing, options, setting)

    try:
        fitting = fit(foreseen, (z, y, x), best, free, cpu_fallback=cpu_fallback)
    except FailureError as failed:
        if failed.failure.code is not FailureCode.OUT_OF_MEMORY:
            raise
        _print(file.name, (foreseen((z, y, x), best), best, ()), free, as_json=json_output)
        typer.echo(f"{failed.failure.message}\n{failed.failure.hint}", err=True)
        raise typer.Exit(1) from None
    _print(file.name, (fitting.outlook, fitting.setting, fitting.steps), free, as_json=json_output)


def _device_memory(gigabytes: float | None, ask: Any) -> int | None:  # noqa: ANN401 - see `plan`
    return ask() if gigabytes is None else int(gigabytes * 1e9)


def _print(name: str, planned: tuple[Any, Any, tuple[str, ...]], free: Any, *, as_json: bool) -> None:  # noqa: ANN401 - see `plan`
    outlook, setting, steps = planned
    if as_json:
        _print_json(outlook, setting, steps, free)
    else:
        _print_table(name, outlook, setting, steps, free)


def _print_json(outlook: Any, setting: Any, steps: tuple[str, ...], free: Any) -> None:  # noqa: ANN401 - see `plan`
    import json  # noqa: PLC0415

    memory = outlook.memory
    typer.echo(
        json.dumps(
            {
                "engine": "nnunet" if outlook.route is None else "streaming",
                "because": outlook.because,
                "network_shape": list(outlook.seen[::-1]),
                "tiles": memory.tiles,
                "device_type": setting.device,
                "passes_at_once": setting.batch,
                "given_up_for_memory": list(steps),
                "host_bytes": memory.host_bytes,
                "host": memory.host,
                "device_bytes": memory.device_bytes,
                "device": memory.device,
                "free_host_bytes": free.host,
                "free_device_bytes": free.device,
            },
            indent=2,
        )
    )


def _print_table(
    name: str,
    outlook: Any,  # noqa: ANN401 - see `plan`
    setting: Any,  # noqa: ANN401 - see `plan`
    steps: tuple[str, ...],
    free: Any,  # noqa: ANN401 - see `plan`
) -> None:
    memory = outlook.memory
    on_gpu = {"GPU memory": f"{_gigabytes(memory.device)}; {_free(free.device)}"} if memory.device else {}
    rows = {
        "engine": "streaming" if outlook.route is not None else f"nnU-Net's own: the model {outlook.because}",
        "network sees": " x ".join(str(edge) for edge in outlook.seen[::-1])
        + " voxels (X, Y, Z), less if zeros frame it",
        "tiles": f"{memory.tiles} over {setting.folds} fold{'s' * (setting.folds > 1)}; "
        f"passes at once: {setting.batch}",
        "main memory": f"{_gigabytes(memory.host)}; {_free(free.host)}",
        **on_gpu,
        **({"given up": "; ".join(steps)} if steps else {}),
    }
    typer.echo(name)
    for label, text in rows.items():
        typer.echo(f"  {label:13} {text}")


def _free(there: int | None) -> str:
    return "how much is free is unknown" if there is None else f"{there / 1e9:.2f} GB are free"


def _gigabytes(parts: dict[str, int]) -> str:
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return f"{sum(parts.values()) / 1e9:.2f} GB: " + ", ".join(f"{name} {size / 1e9:.2f}" for name, size in largest)

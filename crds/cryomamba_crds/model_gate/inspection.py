"""Looks at a whole model: its files, plans, dataset and every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cryomamba_crds.model_gate.archive import CHECKPOINT, ModelFiles, model_files, refuse_incomplete
from cryomamba_crds.model_gate.checkpoint import CheckpointFacts, inspect_checkpoint
from cryomamba_crds.model_gate.errors import ModelError
from cryomamba_crds.model_gate.facts import ModelFacts
from cryomamba_crds.model_gate.plans import (
    TRAINERS,
    Configuration,
    Dataset,
    Plans,
    check,
    read_json,
    resolve_configuration,
)


@dataclass(frozen=True)
class InspectedModel:
    """A model that passed the gate, with its documents."""

    facts: ModelFacts
    plans: dict[str, Any]
    """plans.json; its one configuration is ``facts.configuration``, with inheritance resolved, in today's form."""
    dataset: dict[str, Any]
    """dataset.json."""


def inspect_model(model: Path | BinaryIO) -> ModelFacts:
    """Check an untrusted nnU-Net v2 model and return what it is, running and unpacking nothing of it.

    Args:
        model: A result folder, or a zip of one (its content at the root or below one folder) as a path or as a
            seekable file.

    Raises:
        ModelError: VALIDATION_ERROR; ``details["field"]`` is the place, the message says what is wrong there.
    """
    return open_model(model).facts


def open_model(model: Path | BinaryIO) -> InspectedModel:
    """Do as `inspect_model` does and return the documents as well.

    Raises:
        ModelError: As `inspect_model`.
    """
    with model_files(model) as files:
        names = files.names()
        refuse_incomplete(names)
        plans = _json(files, "plans.json")
        dataset = _json(files, "dataset.json")
        shared = check(Plans, plans, "plans.json")
        checked_dataset = check(Dataset, dataset, "dataset.json")
        checkpoints = [name for name in names if name.endswith(CHECKPOINT)]
        # The checkpoint alone says which of the plans' configurations the model is.
        said = [_checkpoint(files, name) for name in checkpoints]
    one = _agreed(checkpoints, said)
    configuration = resolve_configuration(plans, one.configuration)
    checked = check(Configuration, configuration, f"plans.json: configurations.{one.configuration}")
    facts = _facts(_folds(checkpoints), one, (shared, checked, checked_dataset))
    return InspectedModel(facts, {**plans, "configurations": {one.configuration: configuration}}, dataset)


def _json(files: ModelFiles, name: str) -> dict[str, Any]:
    with files.open(name) as file:
        return read_json(file, files.size(name), name)


def _checkpoint(files: ModelFiles, name: str) -> CheckpointFacts:
    with files.open(name) as file:
        facts = inspect_checkpoint(file, name)
    if facts.trainer_name not in TRAINERS:
        raise ModelError(
            f"{name}: trainer_name",
            f"is {facts.trainer_name!r}, which may change the network or its input",
            hint="Use a model trained with nnUNetTrainer or one of its variants that keep the network of the plans.",
        )
    return facts


def _agreed(names: Sequence[str], said: Sequence[CheckpointFacts]) -> CheckpointFacts:
    for name, facts in zip(names, said, strict=True):
        if facts != said[0]:
            raise ModelError(name, f"belongs to another training than {names[0]}: {facts}, {said[0]}")
    return said[0]


def _folds(checkpoints: Sequence[str]) -> list[str]:
    return [name.removeprefix("fold_").split("/")[0] for name in checkpoints]


def _facts(
    folds: Sequence[str], checkpoint: CheckpointFacts, documents: tuple[Plans, Configuration, Dataset]
) -> ModelFacts:
    plans, configuration, dataset = documents
    channels = len(dataset.channel_names)
    field = f"plans.json: configurations.{checkpoint.configuration}"
    for key in ("normalization_schemes", "use_mask_for_norm"):
        if len(getattr(configuration, key)) != channels:
            raise ModelError(f"{field}.{key}", f"must have an entry for each of the {channels} channels")
    missing = [str(channel) for channel in range(channels)]
    missing = [name for name in missing if name not in plans.foreground_intensity_properties_per_channel]
    if missing:
        raise ModelError(
            "plans.json: foreground_intensity_properties_per_channel",
            f"must describe {channels} channels; there is no {', '.join(missing)}",
        )
    dimensions = len(configuration.patch_size)
    if checkpoint.mirroring_axes is not None and max(checkpoint.mirroring_axes) >= dimensions:
        raise ModelError(f"{field}.patch_size", "has fewer axes than training mirrored")
    z, y, x = plans.original_median_spacing_after_transp
    first, second, third = plans.transpose_forward
    return ModelFacts(
        configuration=checkpoint.configuration,
        trainer_name=checkpoint.trainer_name,
        folds=tuple(sorted((fold for fold in folds if fold != "all"), key=int)),
        has_fold_all="all" in folds,
        label_names=dataset.foreground,
        regions=dataset.regions,
        channel_names=tuple(dataset.channel_names.values()),
        patch_size=tuple(configuration.patch_size),
        spacing=tuple(configuration.spacing),
        original_median_spacing=(z, y, x),
        transpose_forward=(first, second, third),
        mirroring_axes=checkpoint.mirroring_axes,
        previous_stage=configuration.previous_stage,
    )

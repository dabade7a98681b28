"""Brings a model of the catalogue into memory: unpacked once a digest, past the gate, without nnU-Net's own loader.

nnU-Net's ``initialize_from_trained_model_folder`` runs whatever pickle and plans name, and looks for the trainer class
by importing every trainer there is; here the network is built from a fixed list of classes instead.
"""

import contextlib
import errno
import hashlib
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import (
    InspectedModel,
    ModelError,
    ModelFacts,
    check_runnable,
    extract_model,
    inspect_model,
    open_model,
    resolve_folds,
)
from cryomamba_crds.task import Folds

_NETWORKS: Mapping[str, type[nn.Module]] = {
    "PlainConvUNet": PlainConvUNet,
    "ResidualEncoderUNet": ResidualEncoderUNet,
}
_LAYERS: Mapping[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        nn.Conv2d,
        nn.Conv3d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.LeakyReLU,
        nn.ReLU,
    )
}


@dataclass(frozen=True)
class Model:
    """A model that is ready to run."""

    facts: ModelFacts
    folds: tuple[str, ...]
    """The folds whose outputs are averaged; `parameters` has one entry for each."""
    plans: PlansManager
    configuration: ConfigurationManager
    labels: LabelManager
    dataset: dict[str, Any]
    network: nn.Module
    """For inference; holds the first fold's weights, on the CPU until it is run."""
    parameters: list[dict[str, torch.Tensor]]
    """On the CPU, mapped from the checkpoints."""
    device: torch.device
    """Where the network will run; nothing is there yet."""


def select_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return where to run: with ``auto`` the first GPU that torch can use, else the CPU.

    Raises:
        FailureError: GPU_ERROR; a GPU was asked for by name and there is none.
    """
    if wanted != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if wanted == "cuda":
        raise FailureError(
            FailureCode.GPU_ERROR,
            "device: torch sees no usable NVIDIA GPU",
            hint="Check the driver with nvidia-smi, or run on the CPU.",
        )
    return torch.device("cpu")


def cached_model(digest: str, cache: Path) -> Path | None:
    """Return the folder with a model's unpacked files where there is one; see `fetch_model`."""
    folder = cache / digest.removeprefix("sha256:")
    return folder if folder.is_dir() else None


def fetch_model(archive: Path, digest: str, cache: Path) -> Path:
    """Return the folder with a model's unpacked files, unpacking them if that has not been done.

    Safe for several processes at once: each unpacks aside and renames; the first one wins.

    Args:
        archive: The model's zip.
        digest: ``sha256:...``, what the catalogue pins.
        cache: Holds one folder for each digest; made if it is not there.

    Raises:
        FailureError: VALIDATION_ERROR, the zip has another digest; INSUFFICIENT_STORAGE, the cache is full.
        ModelError: The gate refuses the model.
    """
    if cached := cached_model(digest, cache):
        return cached
    target = cache / digest.removeprefix("sha256:")
    with _a_full_disk_named(cache), archive.open("rb") as file:
        if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise FailureError(
                FailureCode.VALIDATION_ERROR,
                f"model: the archive {archive.name} is not the one with digest {digest}",
                hint="The file in the store was changed or damaged; push the model again.",
                details={"field": "model.digest"},
            )
        file.seek(0)
        inspect_model(file)
        file.seek(0)
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=cache))
        try:
            extract_model(file, aside)
            _rename_unless_there(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _rename_unless_there(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise


@contextlib.contextmanager
def _a_full_disk_named(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FailureError(
            FailureCode.INSUFFICIENT_STORAGE,
            f"model cache: no space left in {cache}",
            hint="Free space in the model cache, or give it a larger volume.",
        ) from error


def load_model(folder: Path, folds: Folds, device: torch.device) -> Model:
    """Load a model from a folder that `fetch_model` returned, or from an nnU-Net result folder.

    Args:
        folder: Holds plans.json, dataset.json and fold_*/checkpoint_final.pth.
        folds: Which folds to average; see `resolve_folds`.
        device: Where the network will run.

    Raises:
        ModelError: The gate refuses the model, a checkpoint's weights are not those of the network that the plans
            describe, or the model is a later stage of a cascade.
        FailureError: VALIDATION_ERROR; a fold is not there.
    """
    inspected = open_model(folder)
    facts = inspected.facts
    check_runnable(facts)
    chosen = resolve_folds(facts, folds)
    # nnU-Net prints when the key is missing, and the default is the only one that the gate lets through.
    plans = PlansManager({"label_manager": "LabelManager", **inspected.plans})
    parameters = [_weights(folder / f"fold_{fold}" / "checkpoint_final.pth") for fold in chosen]
    network = _network(inspected)
    for fold, weights in zip(chosen, parameters, strict=True):
        _refuse_other_architecture(network, weights, f"fold_{fold}/checkpoint_final.pth")
    network.load_state_dict({name: _own(value) for name, value in parameters[0].items()}, assign=True)
    network.eval()
    return Model(
        facts=facts,
        folds=chosen,
        plans=plans,
        configuration=plans.get_configuration(facts.configuration),
        labels=plans.get_label_manager(inspected.dataset),
        dataset=inspected.dataset,
        network=network,
        parameters=parameters,
        device=device,
    )


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint on the CPU; mapped, so that the optimiser's state beside them is not read."""
    field = f"{checkpoint.parent.name}/{checkpoint.name}"
    scalar = np.float64(0).__reduce__()[0]
    safe: list[Any] = [
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Float64DType,
    ]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(field, f"torch does not load it ({error})"[:1000]) from error
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelError(f"{field}: network_weights", "is missing or holds something other than tensors")
    return weights


def _own(value: torch.Tensor) -> torch.Tensor:
    """Copy a mapped array, floats as float32, so that loading another fold's weights leaves the file's alone."""
    return value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()


def _network(model: InspectedModel) -> nn.Module:
    """Build the network of the plans without memory for its weights, as ``get_network_from_plans`` would."""
    architecture = model.plans["configurations"][model.facts.configuration]["architecture"]
    arguments = {
        # The gate lets no other strings through than the names of layers.
        key: _LAYERS[value.rsplit(".", 1)[-1]] if isinstance(value, str) else value
        for key, value in architecture["arch_kwargs"].items()
    }
    build = _NETWORKS[architecture["network_class_name"].rsplit(".", 1)[-1]]
    try:
        with torch.device("meta"):
            return build(
                input_channels=len(model.facts.channel_names),
                num_classes=model.facts.heads,
                **{**arguments, "deep_supervision": False},
            )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        field = f"plans.json: configurations.{model.facts.configuration}.architecture"
        raise ModelError(field, f"describes no network that can be built ({error})"[:1000]) from error


def _refuse_other_architecture(network: nn.Module, weights: Mapping[str, torch.Tensor], field: str) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise ModelError(
            f"{field}: network_weights.{name}",
            f"has shape {found.get(name, 'none')} where the network of plans.json and dataset.json has "
            f"{expected.get(name, 'none')}; {len(differing)} of {len(expected)} arrays differ",
            hint="plans.json or dataset.json belongs to another training than the checkpoint.",
        )

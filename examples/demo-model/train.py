"""Train the demo model with nnU-Net on two CPU cores and pack it as the model that CryoMamba ships.

nnU-Net's own fingerprint, planner, preprocessor and trainer run here; only the plan's patch and network are cut to what
a CPU can train while one waits. Needs the dataset that make_dataset.py writes into the same work directory.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import os
import random
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from make_dataset import DATASET_ID, DATASET_NAME
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess_dataset,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from cryomamba.phantom import BACKGROUND, LABEL_NAMES, MEMBRANE, PARTICLE

CONFIGURATION: Final = "3d_fullres"
FOLD: Final = "all"
PATCH_SIZE: Final = [32, 64, 64]
FEATURES: Final = [8, 16, 32]
COLOURS: Final = {MEMBRANE: "#56b4e9", PARTICLE: "#e69f00"}
BUNDLED: Final = Path(__file__).parents[2] / "apiserver" / "cryomamba_apiserver" / "models" / "bundled" / "demo"

# What prediction needs of a checkpoint; the optimiser's state and the training curves would be three quarters of it.
KEPT: Final = (
    "network_weights",
    "trainer_name",
    "init_args",
    "inference_allowed_mirroring_axes",
    "current_epoch",
    "grad_scaler_state",
)


def plan_and_preprocess(work_dir: Path) -> dict[str, Any]:
    """Run nnU-Net's fingerprint, planner and preprocessor on the dataset in a work directory.

    Args:
        work_dir: Folder with `raw/Dataset001_Phantom`; receives `preprocessed`.

    Returns:
        nnU-Net's plans for the dataset, uncut.
    """
    extract_fingerprints([DATASET_ID], num_processes=1)
    plans_name = plan_experiments([DATASET_ID])
    preprocess_dataset(DATASET_ID, plans_name, configurations=(CONFIGURATION,), num_processes=[1])
    plans: dict[str, Any] = json.loads((work_dir / "preprocessed" / DATASET_NAME / f"{plans_name}.json").read_text())
    return plans


def cut_plans(plans: dict[str, Any]) -> dict[str, Any]:
    """Cut plans to a patch and a network that two cores can train.

    Preprocessing does not depend on either, so the data that was preprocessed for the uncut plans stays valid.

    Args:
        plans: nnU-Net's plans.

    Returns:
        A copy with one configuration, a patch [z, y, x] of 32, 64, 64 voxels, and stages of 8, 16 and 32 features.
    """
    cut = copy.deepcopy(plans)
    configuration = cut["configurations"][CONFIGURATION]
    configuration["patch_size"] = PATCH_SIZE
    configuration["batch_size"] = 2
    stages = len(FEATURES)
    configuration["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=FEATURES,
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    cut["configurations"] = {CONFIGURATION: configuration}
    cut["plans_name"] = "demoPlans"
    return cut


def train(
    plans: dict[str, Any], dataset: dict[str, Any], *, epochs: int, iterations: int, learning_rate: float
) -> Path:
    """Train nnU-Net's default trainer, which augments and mirrors, on all cases.

    Args:
        plans: Cut plans.
        dataset: What dataset.json says.
        epochs: Number of epochs; the learning rate falls to 0 over them.
        iterations: Batches per epoch.
        learning_rate: Initial learning rate.

    Returns:
        Folder of the trained model, with plans.json, dataset.json and fold_all.
    """
    # The trainer takes this key out of the plans it is given.
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, CONFIGURATION, FOLD, dataset, device=torch.device("cpu")
    )
    trainer.num_epochs = epochs
    trainer.num_iterations_per_epoch = iterations
    trainer.num_val_iterations_per_epoch = 4
    trainer.initial_lr = learning_rate
    trainer.run_training()
    return Path(trainer.output_folder_base)


def strip_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Save what prediction needs of a checkpoint.

    Args:
        checkpoint: A checkpoint as nnU-Net's trainer writes it.

    Returns:
        A checkpoint file's bytes. It loads with `weights_only=True`.
    """
    stripped = io.BytesIO()
    torch.save({key: checkpoint[key] for key in KEPT}, stripped)
    return stripped.getvalue()


def pack(files: dict[str, bytes]) -> bytes:
    """Zip files so that the same files always give the same bytes.

    Args:
        files: Content by name inside the archive.

    Returns:
        The archive's bytes.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, content)
    return archive.getvalue()


def describe(archive: bytes) -> dict[str, Any]:
    """Make the model.json that belongs to a packed model.

    Args:
        archive: Bytes of model.zip.

    Returns:
        Labels with names and colours, spacing policy, contrast and digest.
    """
    return {
        "labels": [
            {"id": label, "name": name, "colour": COLOURS[label]}
            for label, name in LABEL_NAMES.items()
            if label != BACKGROUND
        ],
        "spacing_policy": "ignore",
        "contrast": "dark",
        "digest": f"sha256:{hashlib.sha256(archive).hexdigest()}",
        "seconds_per_tile": None,
    }


def write_model(trained: Path, output: Path) -> None:
    """Pack a trained model folder into `model.zip` with its `model.json`.

    Args:
        trained: Folder that `train` returned.
        output: Folder for the two files.
    """
    # nnU-Net wrote this file a moment ago on this machine, NumPy scalars and all: the one case for a full unpickling.
    checkpoint = torch.load(trained / f"fold_{FOLD}" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    archive = pack(
        {
            "plans.json": (trained / "plans.json").read_bytes(),
            "dataset.json": (trained / "dataset.json").read_bytes(),
            f"fold_{FOLD}/checkpoint_final.pth": strip_checkpoint(checkpoint),
        }
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.zip").write_bytes(archive)
    (output / "model.json").write_text(json.dumps(describe(archive), indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line, then plan, train and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, required=True, help="folder that make_dataset.py wrote into")
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder for model.zip and model.json")
    parser.add_argument("--epochs", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=100, help="batches per epoch (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.02, help="initial one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, patches and augmentation")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    work_dir = arguments.work_dir.resolve()
    description = work_dir / "raw" / DATASET_NAME / "dataset.json"
    if not description.exists():
        sys.exit(f"no dataset in {work_dir}: run make_dataset.py --work-dir {work_dir} first")

    started = time.monotonic()
    # nnU-Net reads these when it needs them; its planner uses the number of augmentation processes as its threads.
    os.environ.update(
        nnUNet_raw=str(work_dir / "raw"),
        nnUNet_preprocessed=str(work_dir / "preprocessed"),
        nnUNet_results=str(work_dir / "results"),
        nnUNet_n_proc_DA=str(arguments.threads),
        nnUNet_compile="false",
    )
    plans = cut_plans(plan_and_preprocess(work_dir))
    planned = time.monotonic()
    # In training the order of batches from augmentation processes depends on timing, which no seed mends: use none.
    os.environ.update(nnUNet_n_proc_DA="0")
    torch.set_num_threads(arguments.threads)
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002  nnU-Net draws from NumPy's global generator
    torch.manual_seed(arguments.seed)
    trained = train(
        plans,
        json.loads(description.read_text()),
        epochs=arguments.epochs,
        iterations=arguments.iterations,
        learning_rate=arguments.learning_rate,
    )
    write_model(trained, arguments.output)
    finished = time.monotonic()
    print(
        f"planned in {planned - started:.0f} s, trained in {finished - planned:.0f} s, packed into {arguments.output}"
    )


if __name__ == "__main__":
    main()

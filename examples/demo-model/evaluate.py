"""Measure the packed demo model: Dice of each label on phantoms whose seeds it was not trained on.

The model is loaded as a stranger's would be: its digest is compared with model.json, its checkpoint goes through
torch's weights-only loader, and the trainer class is the one named here, not one that the model names. Exits with 1
when the mean Dice of a label is below `--minimum`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from cryomamba.phantom import DEFAULT_NOISE, make_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUNDLED: Final = Path(__file__).parents[2] / "apiserver" / "cryomamba_apiserver" / "models" / "bundled" / "demo"
FIRST_UNSEEN_SEED: Final = 1000


def load_predictor(model: Path, *, mirroring: bool = True) -> nnUNetPredictor:
    """Load a packed model into nnU-Net's predictor, in this process, on the CPU.

    Args:
        model: Folder with model.zip and model.json.
        mirroring: Average over mirrored tiles along the axes that the checkpoint allows.

    Returns:
        A predictor that is ready for preprocessed data.

    Raises:
        ValueError: The digest differs from model.json, or the model was trained with another trainer class.
        pickle.UnpicklingError: The checkpoint holds more than weights and plain values.
    """
    archive = (model / "model.zip").read_bytes()
    expected = json.loads((model / "model.json").read_text())["digest"]
    if (digest := f"sha256:{hashlib.sha256(archive).hexdigest()}") != expected:
        raise ValueError(f"model.zip has the digest {digest}, model.json says {expected}")
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        plans = PlansManager(json.loads(packed.read("plans.json")))
        dataset = json.loads(packed.read("dataset.json"))
        checkpoint: dict[str, Any] = torch.load(
            io.BytesIO(packed.read("fold_all/checkpoint_final.pth")), map_location="cpu", weights_only=True
        )
    if checkpoint["trainer_name"] != nnUNetTrainer.__name__:
        raise ValueError(f"expected a model of {nnUNetTrainer.__name__}, got one of {checkpoint['trainer_name']}")
    configuration = plans.get_configuration(checkpoint["init_args"]["configuration"])
    network = nnUNetTrainer.build_network_architecture(
        plans,
        configuration,
        len(dataset["channel_names"]),
        plans.get_label_manager(dataset).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.manual_initialization(
        network,
        plans,
        configuration,
        [checkpoint["network_weights"]],
        dataset,
        checkpoint["trainer_name"],
        checkpoint["inference_allowed_mirroring_axes"],
    )
    return predictor


def segment(predictor: nnUNetPredictor, density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Segment a tomogram the way nnU-Net does, taking its voxels as they are.

    Args:
        predictor: What `load_predictor` returned.
        density: Tomogram, [z, y, x].

    Returns:
        Labels, [z, y, x].
    """
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    properties: dict[str, Any] = {"spacing": plans.plans["original_median_spacing_after_transp"]}
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case_npy(
        density[None], None, properties, plans, configuration, predictor.dataset_json
    )
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    labels: NDArray[np.uint8] = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, predictor.label_manager, properties
    )
    return labels


def dice(found: NDArray[np.uint8], truth: NDArray[np.uint8], label: int) -> float:
    """Dice coefficient of one label: twice the common voxels over the sum of both; 1 where neither has any.

    Args:
        found: Predicted labels, any shape.
        truth: True labels of the same shape.
        label: The label to compare.

    Returns:
        A number from 0 to 1.
    """
    ours, theirs = found == label, truth == label
    total = int(ours.sum()) + int(theirs.sum())
    return 2 * int((ours & theirs).sum()) / total if total else 1.0


def main() -> None:
    """Read the command line, print a table, exit with 1 when a label falls short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=BUNDLED, help="folder with model.zip and model.json")
    parser.add_argument("--work-dir", type=Path, help="also write the segmentations here, as .npy [z, y, x]")
    parser.add_argument("--count", type=int, default=8, help="number of phantoms (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=FIRST_UNSEEN_SEED, help="(default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128), metavar=("Z", "Y", "X"), help="voxels")
    parser.add_argument("--noise", type=float, default=DEFAULT_NOISE, help="noise over signal (default: %(default)s)")
    parser.add_argument("--minimum", type=float, default=0.8, help="least mean Dice (default: %(default)s)")
    parser.add_argument("--no-mirroring", action="store_true", help="predict each tile once instead of eight times")
    arguments = parser.parse_args()

    os.environ.update(nnUNet_compile="false")
    predictor = load_predictor(arguments.model, mirroring=not arguments.no_mirroring)
    labels = {
        label["id"]: label["name"] for label in json.loads((arguments.model / "model.json").read_text())["labels"]
    }
    scores: dict[int, list[float]] = {label: [] for label in labels}
    print("seed".ljust(8), *(name.rjust(9) for name in labels.values()), "seconds".rjust(9))
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.count):
        phantom = make_phantom(seed, tuple(arguments.shape), noise=arguments.noise)
        started = time.monotonic()
        found = segment(predictor, phantom.density)
        seconds = time.monotonic() - started
        for label, values in scores.items():
            values.append(dice(found, phantom.labels, label))
        print(f"{seed:<8}", *(f"{values[-1]:9.3f}" for values in scores.values()), f"{seconds:9.1f}", flush=True)
        if arguments.work_dir:
            arguments.work_dir.mkdir(parents=True, exist_ok=True)
            np.save(arguments.work_dir / f"segmentation_{seed}.npy", found)
    means = {label: statistics.fmean(values) for label, values in scores.items()}
    print("mean".ljust(8), *(f"{mean:9.3f}" for mean in means.values()))
    short = [labels[label] for label, mean in means.items() if mean < arguments.minimum]
    if short:
        sys.exit(f"mean Dice below {arguments.minimum}: {', '.join(short)}")


if __name__ == "__main__":
    main()

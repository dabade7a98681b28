"""Write a raw nnU-Net dataset of synthetic tomograms: the images and labels the demo model is trained on.

The images are the phantoms of consecutive seeds, so the dataset is the same wherever it is made. Files are NIfTI with a
spacing of 1, 1, 1: the plan then has that spacing too, and the packed model takes tomograms voxel by voxel, whatever
voxel size their headers claim.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import SimpleITK

from cryomamba.phantom import DEFAULT_NOISE, LABEL_NAMES, make_phantom

DATASET_ID: Final = 1
DATASET_NAME: Final = f"Dataset{DATASET_ID:03d}_Phantom"
FILE_ENDING: Final = ".nii.gz"


def make_dataset(
    work_dir: Path, *, count: int, first_seed: int, shape: tuple[int, int, int], noise: float = DEFAULT_NOISE
) -> Path:
    """Write phantoms as an nnU-Net dataset below a work directory.

    Args:
        work_dir: Folder that receives `raw/Dataset001_Phantom`; files of an earlier run are overwritten.
        count: How many phantoms.
        first_seed: Seed of the first phantom; the others follow it.
        shape: Voxels of each phantom along [z, y, x].
        noise: Standard deviation of the noise over that of the density.

    Returns:
        The dataset's folder.

    Raises:
        ValueError: A phantom cannot be made with this shape, seed or noise.
    """
    dataset = work_dir / "raw" / DATASET_NAME
    images, labels = dataset / "imagesTr", dataset / "labelsTr"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + count):
        phantom = make_phantom(seed, shape, noise=noise)
        # SimpleITK takes an array [z, y, x] and gives a new image the spacing 1, 1, 1.
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(phantom.density), images / f"phantom_{seed:04d}_0000{FILE_ENDING}"
        )
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(phantom.labels), labels / f"phantom_{seed:04d}{FILE_ENDING}")
    description = {
        "channel_names": {"0": "density"},
        "labels": {name: value for value, name in LABEL_NAMES.items()},
        "numTraining": count,
        "file_ending": FILE_ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (dataset / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return dataset


def main() -> None:
    """Read the command line and write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, required=True, help="folder for everything that training writes")
    parser.add_argument("--count", type=int, default=20, help="number of phantoms (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first phantom (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128), metavar=("Z", "Y", "X"), help="voxels")
    parser.add_argument("--noise", type=float, default=DEFAULT_NOISE, help="noise over signal (default: %(default)s)")
    arguments = parser.parse_args()
    dataset = make_dataset(
        arguments.work_dir,
        count=arguments.count,
        first_seed=arguments.first_seed,
        shape=tuple(arguments.shape),
        noise=arguments.noise,
    )
    print(f"{arguments.count} phantoms in {dataset}")


if __name__ == "__main__":
    main()

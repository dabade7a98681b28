"""A whole job as nnU-Net does it, one worker a stage: ``nnunet_job.py MODEL FOLD INPUT OUTPUT THREADS``."""

import sys

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor


def main() -> None:
    """Segment a file."""
    model, fold, source, target, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, (fold,))
    predictor.predict_from_files(
        [[source]], [target], num_processes_preprocessing=1, num_processes_segmentation_export=1
    )


if __name__ == "__main__":
    main()

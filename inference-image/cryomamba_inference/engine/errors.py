"""Failures that a person can act on, from what torch, NumPy and nnU-Net raise."""

import torch

from cryomamba_crds.failures import FailureCode, FailureError


def named(error: Exception, device: torch.device) -> FailureError:
    """Turn what torch, NumPy or nnU-Net raised into a failure that a person can act on."""
    if isinstance(error, FailureError):
        return error
    cause = f"{type(error).__name__}: {error}"[:1500]
    failure: FailureError
    if isinstance(error, torch.OutOfMemoryError):
        failure = FailureError(
            FailureCode.OUT_OF_MEMORY,
            f"inference: {device} is out of memory ({cause})",
            hint="Stop what else runs on the GPU, use one with more memory, or a model with a smaller patch; step size "
            "and mirroring make no difference.",
        )
    elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        failure = FailureError(
            FailureCode.OUT_OF_MEMORY,
            f"inference: main memory is full ({cause})",
            hint="Bin or crop the volume, or use a machine with more memory.",
        )
    elif "CUDA error" in str(error) or "CUDNN" in str(error):
        failure = FailureError(
            FailureCode.GPU_ERROR,
            f"inference: {device} failed ({cause})",
            hint="Run the job again; if it fails on the same GPU again, have the GPU checked (nvidia-smi -q).",
        )
    else:
        failure = FailureError(
            FailureCode.INFERENCE_ERROR,
            f"inference: the network failed ({cause})",
            hint="Check that the model fits this volume: its dimensions, voxel size and intensities.",
        )
    failure.__cause__ = error
    return failure

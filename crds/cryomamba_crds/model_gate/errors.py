"""The one form in which the gate refuses a model."""

from cryomamba_crds.failures import FailureCode, FailureError

_HINT = (
    "Push a model that nnU-Net v2 itself wrote: a result folder (nnUNetTrainer__nnUNetPlans__3d_fullres or alike) "
    "with plans.json, dataset.json and fold_*/checkpoint_final.pth, or the zip that nnUNetv2_export_model_to_zip makes."
)


class ModelError(FailureError):
    """A model is not taken: VALIDATION_ERROR, with the place in ``details["field"]``."""

    def __init__(self, field: str, problem: str, *, hint: str = _HINT) -> None:
        super().__init__(
            FailureCode.VALIDATION_ERROR, f"model: {field}: {problem}", hint=hint, details={"field": field}
        )
        self.field = field

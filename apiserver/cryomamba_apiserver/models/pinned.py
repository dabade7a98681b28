"""The card of the very model that a job was created with, whatever its name stands for by now."""

from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore
from cryomamba_crds import keys
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_card import ModelCard


async def pinned_card(objects: ObjectStore, name: str, digest: str) -> ModelCard:
    """Return the card that came with a zip.

    Raises:
        FailureError: VALIDATION_ERROR; the model has been taken out of the catalogue.
        StoreUnavailableError: nobody knows.
    """
    # A model that an earlier version has put in has only the card that its name stands for.
    for key in (keys.model_archive_card(name, digest), keys.model_card(name)):
        try:
            card = ModelCard.model_validate_json(await objects.read(key))
        except ObjectMissingError:
            continue
        if card.digest == digest:
            return card
    raise FailureError(
        FailureCode.VALIDATION_ERROR,
        f"The model '{name}' that the job was created with is not in the catalogue any more ({digest}).",
        hint="Create the job again with a model that is there.",
    )

"""The catalogue: each zip has the card that it came with, whatever its name stands for by now."""

import asyncio
from pathlib import Path

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.models.catalogue import DEMO_MODEL, Catalogue
from cryomamba_apiserver.models.pinned import pinned_card
from cryomamba_crds import keys
from cryomamba_crds.failures import FailureError
from cryomamba_crds.model_card import ModelCard


@pytest.fixture
def objects(tmp_path: Path) -> DirectoryObjectStore:
    return DirectoryObjectStore(tmp_path / "store")


def bundled(objects: DirectoryObjectStore) -> ModelCard:
    catalogue = Catalogue(objects)

    async def add() -> ModelCard:
        await catalogue.add_bundled()
        return await catalogue.card(DEMO_MODEL)

    return asyncio.run(add())


def test_a_card_is_kept_beside_its_zip(objects):
    card = bundled(objects)

    assert asyncio.run(pinned_card(objects, DEMO_MODEL, card.digest)) == card
    assert asyncio.run(objects.stat(keys.model_archive_card(DEMO_MODEL, card.digest))) is not None


def test_the_card_of_a_model_of_an_earlier_version_is_added(objects):
    card = bundled(objects)
    asyncio.run(objects.delete(keys.model_archive_card(DEMO_MODEL, card.digest)))

    bundled(objects)

    assert asyncio.run(objects.stat(keys.model_archive_card(DEMO_MODEL, card.digest))) is not None


def test_the_card_of_a_zip_stays_what_it_was_when_the_name_stands_for_another(objects):
    card = bundled(objects)
    newer = card.model_copy(update={"digest": "sha256:" + "1" * 64})
    asyncio.run(objects.write(keys.model_card(DEMO_MODEL), newer.model_dump_json().encode()))

    assert asyncio.run(pinned_card(objects, DEMO_MODEL, card.digest)) == card


def test_a_model_that_was_taken_out_is_named(objects):
    card = bundled(objects)
    asyncio.run(Catalogue(objects).remove(DEMO_MODEL))

    with pytest.raises(FailureError, match="not in the catalogue any more"):
        asyncio.run(pinned_card(objects, DEMO_MODEL, card.digest))

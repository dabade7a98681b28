"""The models that jobs may name: in the object store, each a zip and a card, loaded by digest only."""

import asyncio
import re
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from cryomamba_apiserver.errors import InvalidRequestError, NotFoundError
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore
from cryomamba_crds import keys
from cryomamba_crds.model_card import MODEL_NAME_PATTERN, ModelCard
from cryomamba_crds.model_gate import ModelFacts, digest_of, inspect_model

DEMO_MODEL = "demo"


@dataclass(frozen=True)
class CataloguedModel:
    """A model that may be used."""

    name: str
    card: ModelCard
    facts: ModelFacts


class Catalogue:
    """Reads and writes the catalogue of one object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        # A zip's facts never change under its digest, and judging one takes a second.
        self._facts: dict[str, ModelFacts] = {}

    async def names(self) -> list[str]:
        """Return the models that there are, sorted."""
        prefix = keys.models_prefix()
        found = await self._objects.list_keys(prefix)
        names = {key.removeprefix(prefix).split("/", 1)[0] for key in found}
        return sorted(name for name in names if keys.model_card(name) in found)

    async def card(self, name: str) -> ModelCard:
        """Return a model's card; raise NotFoundError that lists what there is."""
        if not re.match(MODEL_NAME_PATTERN, name):
            raise await self._missing(name)
        try:
            return ModelCard.model_validate_json(await self._objects.read(keys.model_card(name)))
        except ObjectMissingError:
            raise await self._missing(name) from None

    async def get(self, name: str) -> CataloguedModel:
        """Return a model that has passed the gate.

        Raises:
            NotFoundError: there is none of this name.
            ModelError: it is unsafe or not complete; names the file and field.
        """
        card = await self.card(name)
        if card.digest not in self._facts:
            self._facts[card.digest] = await asyncio.to_thread(self._inspect, name, card.digest)
        return CataloguedModel(name, card, self._facts[card.digest])

    async def push(self, name: str, archive: Path, card: ModelCard) -> ModelFacts:
        """Add or replace a model; the zip goes through the gate first.

        Raises:
            InvalidRequestError: the name cannot be one, or the card's digest is another zip's.
            ModelError: the model is unsafe or not complete.
        """
        if not re.match(MODEL_NAME_PATTERN, name):
            raise InvalidRequestError(
                f"'{name}' cannot be the name of a model.",
                hint="Use up to 63 small letters, digits, dots, dashes and underscores.",
                details={"field": "name"},
            )
        if await asyncio.to_thread(digest_of, archive) != card.digest:
            raise InvalidRequestError(
                f"The zip of '{name}' is not the one that its card names.",
                hint="Push the model again from its folder.",
                details={"field": "digest"},
            )
        if name == DEMO_MODEL:
            raise InvalidRequestError(
                f"'{DEMO_MODEL}' is the model that ships with the server.",
                hint="Give yours another --name.",
                details={"field": "name"},
            )
        return await self._add(name, archive, card)

    async def remove(self, name: str) -> None:
        """Take a model out; raise NotFoundError."""
        await self.card(name)
        # The card first: without it the model is not there, whatever happens to the zips.
        await self._objects.delete(keys.model_card(name))
        await self._objects.delete_prefix(keys.model_prefix(name))

    async def add_bundled(self) -> None:
        """Put the demo model that ships with the product into the catalogue, where this very one is not there already.

        Its name is reserved, so nobody's own model is replaced.
        """
        with as_file(files("cryomamba_apiserver") / "models" / "bundled" / DEMO_MODEL) as folder:
            card = ModelCard.model_validate_json((folder / "model.json").read_bytes())
            if not await self._holds_bundled(card):
                await self._add(DEMO_MODEL, folder / "model.zip", card)

    async def _holds_bundled(self, card: ModelCard) -> bool:
        try:
            present = (await self.card(DEMO_MODEL)).digest == card.digest
        except NotFoundError:
            return False
        # An earlier version wrote no card beside the zip.
        return present and await self._objects.stat(keys.model_archive_card(DEMO_MODEL, card.digest)) is not None

    async def _missing(self, name: str) -> NotFoundError:
        available = await self.names()
        return NotFoundError(
            f"There is no model '{name}'.",
            hint=f"Available models: {', '.join(available) or 'none'}.",
            details={"available_models": available},
        )

    async def _add(self, name: str, archive: Path, card: ModelCard) -> ModelFacts:
        facts = await asyncio.to_thread(inspect_model, archive)
        with archive.open("rb") as source:
            await self._objects.write_file(keys.model_archive(name, card.digest), source)
        # The card last: a model is there once its card is, and an older zip stays with its own card for the jobs that
        # wait for it.
        written = card.model_dump_json(indent=1).encode()
        await self._objects.write(keys.model_archive_card(name, card.digest), written)
        await self._objects.write(keys.model_card(name), written)
        return facts

    def _inspect(self, name: str, digest: str) -> ModelFacts:
        with self._objects.open(keys.model_archive(name, digest)) as archive:
            return inspect_model(archive)

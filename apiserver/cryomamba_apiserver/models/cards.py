"""Drafts a model's card from what its files say."""

from typing import TYPE_CHECKING, Literal

from cryomamba_crds.model_card import Label, ModelCard
from cryomamba_crds.model_gate import ModelFacts

if TYPE_CHECKING:
    from cryomamba_crds.model_card import SpacingPolicy

# Okabe and Ito's palette, which colour-blind people can tell apart; repeated where there are more labels.
_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def draft_card(
    facts: ModelFacts,
    digest: str,
    spacing_policy: Literal["auto", "ignore", "angstrom", "nm"],
    contrast: Literal["dark", "bright"],
    *,
    cpu_fallback: bool = False,
) -> ModelCard:
    """Return a card for a model; `auto` ignores a plan's spacing of 1, 1, 1 and takes any other as Å."""
    automatic: SpacingPolicy = "ignore" if all(edge == 1 for edge in facts.spacing) else "angstrom"
    return ModelCard(
        labels=[
            Label(id=number, name=name, colour=_COLOURS[index % len(_COLOURS)])
            for index, (number, name) in enumerate(sorted(facts.label_names.items()))
        ],
        spacing_policy=automatic if spacing_policy == "auto" else spacing_policy,
        contrast=contrast,
        digest=digest,
        cpu_fallback=cpu_fallback,
    )

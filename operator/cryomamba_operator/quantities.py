"""Reads Kubernetes' quantities, such as `500m`, `2` and `16Gi`."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[numkMGTPE]|[KMGTPE]i)?")
_UNITS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(1000),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """Return a quantity as a plain number.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ (without exponents).

    Raises:
        ValueError: The text is no quantity.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 16Gi")
    return Decimal(match["number"]) * _UNITS[match["unit"] or ""]

"""The product's images on the test cluster's node."""

import json
import subprocess
import sys
from dataclasses import dataclass

from support.kubernetes import TOOL

# A fresh machine builds 6 GB; one that has built before is done in a second.
SECONDS = 1500


@dataclass(frozen=True)
class ProductImages:
    """Names and tags of the images, which are on the node."""

    server: str
    inference: str


def loaded() -> ProductImages:
    """Put the images of the sources as they are on the running cluster's node."""
    done = subprocess.run(
        [sys.executable, TOOL, "load-images"], stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=True
    )
    names = json.loads(done.stdout)
    return ProductImages(server=names["cryomamba-server"], inference=names["cryomamba-inference"])

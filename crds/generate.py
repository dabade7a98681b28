"""Write `crds/*.yaml` from the models; with --check only say whether the files are up to date."""

import argparse
import sys
from pathlib import Path

import yaml

from cryomamba_crds.crd import custom_resource_definition

_HEADER = "# Generated from crds/cryomamba_crds by `make generate`; changes made here are lost.\n"


def main() -> int:
    """Return 1 where a file differs from what the models say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    path = Path(__file__).with_name("segmentationjobs.yaml")
    text = _HEADER + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120)
    if not check:
        path.write_text(text)
        return 0
    if path.exists() and path.read_text() == text:
        return 0
    print(f"{path.name} is not what the models say; run `make generate` and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

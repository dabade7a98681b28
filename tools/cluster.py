"""A one-node Kubernetes and a MinIO for the tests, without Docker: `python tools/cluster.py --help`."""

import sys

from devcluster.cli import main

if __name__ == "__main__":
    sys.exit(main())

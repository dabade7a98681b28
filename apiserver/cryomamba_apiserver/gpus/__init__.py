"""The GPUs that jobs run on: this machine's, or those of a cluster's nodes."""

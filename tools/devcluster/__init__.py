"""A one-node Kubernetes and a MinIO for the tests: real binaries as plain processes, built from pinned sources.

Standard library only. `cli` is the entry; `local` starts and stops the cluster, `kind` does it where Docker answers.
"""

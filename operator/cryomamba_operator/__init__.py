"""The operator that turns SegmentationJob resources into Kubernetes Jobs."""

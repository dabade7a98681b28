"""A runner as the pod of a SegmentationJob: its task from the environment, its reports into the resource's status."""

"""Jobs: asked for, looked at, watched, cancelled."""

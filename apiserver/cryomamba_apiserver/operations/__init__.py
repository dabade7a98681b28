"""Running the server: logs, metrics, probes, bounds on what clients may do to a connection, the end."""

"""Moves bytes between the node and the chain; never runs a job."""

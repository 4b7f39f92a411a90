"""Measures the node's whole loop: a job submitted on a chain, run, and answered on the chain."""

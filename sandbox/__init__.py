"""Isolated execution of untrusted programs. Knows no chain, no TEE and no job; usable alone."""

"""Thin bindings to the kernel, one concern a file; standard library only."""

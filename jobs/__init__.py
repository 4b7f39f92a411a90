"""Registered job handlers: decode, do, encode."""

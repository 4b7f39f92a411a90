"""Builds and finds the language trees."""

"""Thousands of requests of every kind, with a service that is killed in between, and nothing left behind."""

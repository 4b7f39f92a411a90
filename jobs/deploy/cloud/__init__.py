"""A client of Phala Cloud's HTTP API (docs.phala.com, "Phala Cloud API").

Invariant: nothing above this package sees HTTP, and the API key leaves it only in a request's header.
"""

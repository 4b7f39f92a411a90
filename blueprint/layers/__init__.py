"""Callables that wrap a handler with a limit, a log line or a retry."""

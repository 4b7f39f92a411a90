"""Callables that wrap a handler with a limit, a log line or a retry."""

from blueprint.layers.limit import concurrency_limit, time_limit
from blueprint.layers.log import call_log
from blueprint.layers.retry import RetryBudget, retry

__all__ = ["RetryBudget", "call_log", "concurrency_limit", "retry", "time_limit"]

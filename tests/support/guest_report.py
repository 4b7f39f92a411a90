"""A plugin of pytest inside a guest: one line of JSON for each test, on the second serial port."""

import json

import pytest

from tests.support.guest_init import REPORT_PORT


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell the outcome of each call, and of set-ups that did not pass."""
    if report.when == "call" or report.outcome != "passed":
        line = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "time_s": round(report.duration, 2),
            "text": str(report.longrepr or ""),
        }
        with REPORT_PORT.open("w") as port:
            port.write(json.dumps(line) + "\n")

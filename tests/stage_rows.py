"""A plugin of pytest: a line of JSON for each test as soon as it has ended, and parts of a file.

`pytest -p stage_rows --rows FILE --part 2/6 PATH` runs every sixth test from the second on. Parts
run beside one another, and need no pytest-xdist.
"""

import json


def pytest_addoption(parser):
    parser.addoption("--rows", metavar="FILE", help="where a line of JSON for each test goes")
    parser.addoption("--part", metavar="I/N", default="1/1", help="which part of the tests to run")


def pytest_collection_modifyitems(config, items):
    number, count = map(int, config.getoption("--part").split("/"))
    kept = items[number - 1 :: count]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


class Rows:
    def __init__(self, path):
        self.path = path

    def pytest_runtest_logreport(self, report):
        # a test that fails in its setup has no call
        if report.when != "call" and report.outcome == "passed":
            return
        row = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
        if report.outcome == "failed":
            lines = str(report.longrepr).strip().splitlines()
            told = [line for line in lines if line.startswith("E ")] or lines[-1:]
            row["failed"] = " ".join(told[0].split())[:300] if told else "failed"
        self.write(row)

    def pytest_collectreport(self, report):
        if report.outcome == "failed":
            self.write({"test": report.nodeid, "failed": str(report.longrepr)[-300:]})

    def write(self, row):
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


def pytest_configure(config):
    path = config.getoption("--rows")
    if path:
        config.pluginmanager.register(Rows(path))

"""Runs checks one by one, prints a line for each, and ends with "N passed, N failed"."""

import sys
import time
import traceback


class Checks:
    def __init__(self, title):
        self.title = title
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *args):
        """Calls check(*args); it fails by raising. What it returns is added to the line. Gives whether it passed."""
        began = time.monotonic()
        try:
            note = check(*args)
        except Exception as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            self.failed += 1
            self._line("FAILED", name, began, str(error))
            return False
        self.passed += 1
        self._line("ok", name, began, note)
        return True

    def _line(self, verdict, name, began, note):
        print(f"{verdict:6} {self.title}: {name} ({time.monotonic() - began:.1f} s){f': {note}' if note else ''}", flush=True)

    def finish(self):
        print(f"{self.title}: {self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def expect_equal(ours, theirs, what):
    if ours != theirs:
        raise AssertionError(f"{what}: {ours!r} is not {theirs!r}")


def expect_same_set(ours, theirs, what):
    ours, theirs = set(ours), set(theirs)
    missing, extra = sorted(theirs - ours), sorted(ours - theirs)
    if missing or extra:
        raise AssertionError(f"{what}: {len(missing)} missing {missing[:3]}, {len(extra)} too many {extra[:3]}")

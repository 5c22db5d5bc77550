"""What a check's run says: pass, fail, or unknown.

The exit code alone is not believed. A check that did not run, ran out of time, or ran no test proves nothing: unknown,
which is not a pass. Test runners say in their closing lines how much they ran; a line that says "nothing" makes the
verdict unknown unless another line says that something did run (one command may call several runners).
"""

from __future__ import annotations

import re

from sidecar.core.assignment import Verdict

# The shell's own words for "found, but cannot be executed" and "not found".
SHELL_COULD_NOT_RUN = frozenset({126, 127})

# Closing lines that say that no test ran, by runner.
_NOTHING = re.compile(
    r"""^[^\S\n]*(?:
      =*\ *no\ tests\ ran\b.*                                   # pytest
    | =*\ *\d+\ (?:deselected|warnings?)(?:,\ \d+\ \w+)*\ in\ .* # pytest -k that matches nothing
    | =*\ *\d+\ skipped(?:,\ \d+\ (?:deselected|warnings?))*\ in\ .*   # pytest: every test skipped
    | Ran\ 0\ tests\ in\ .*                                     # unittest
    | NO\ TESTS\ RAN.*                                          # unittest of 3.12
    | \?\s+\S+\s+\[no\ test\ files\]                            # go: package without tests
    | ok\s+\S+\s.*\[no\ tests\ to\ run\]                        # go: -run that matches nothing
    | running\ 0\ tests                                         # cargo
    | No\ tests\ found.*                                        # jest, phpunit
    | No\ test\ files\ found.*                                  # vitest
    | No\ tests\ executed.*                                     # phpunit
    | No\ tests\ were\ found.*                                  # ctest
    | No\ test\ (?:is\ available|matches)\b.*                   # dotnet
    | 0\ passing\b.*                                            # mocha
    | 0\ examples,\ 0\ failures.*                               # rspec
    | \#\ tests\ 0                                              # node --test, tap
    | 1\.\.0\b.*                                                # TAP, bats
    )[^\S\n]*$""",
    re.MULTILINE | re.VERBOSE,
)

# Closing lines that say that at least one test ran.
_SOMETHING = re.compile(
    r"""^[^\S\n]*(?:
      =*\ *(?:\d+\ \w+,\ )*[1-9]\d*\ (?:passed|failed|errors?|xfailed|xpassed)\b.*\ in\ .*   # pytest
    | Ran\ [1-9]\d*\ tests?\ in\ .*                             # unittest
    | ok\s+\S+\s+(?:\(cached\)|[\d.]+s)(?!.*no\ tests\ to\ run).*  # go
    | FAIL\s+\S+\s+[\d.]+s                                      # go
    | running\ [1-9]\d*\ tests?                                 # cargo
    | Tests:\s.*\b[1-9]\d*\ (?:passed|failed)\b.*               # jest
    | [1-9]\d*\ (?:passing|failing)\b.*                         # mocha
    | [1-9]\d*\ examples?,.*                                    # rspec
    | \#\ tests\ [1-9]\d*                                       # node --test, tap
    | 1\.\.[1-9]\d*\b.*                                         # TAP, bats
    )[^\S\n]*$""",
    re.MULTILINE | re.VERBOSE,
)

_UNITTEST_RAN = re.compile(r"^Ran ([1-9]\d*) tests? in ", re.MULTILINE)
_UNITTEST_SKIPPED = re.compile(r"^OK \(skipped=(\d+)\)", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def judge(*, exit_code: int, finished: bool, output: str) -> Verdict:
    """The verdict of one run. `finished` is false when it was ended from outside (deadline, silence, stop)."""
    return "unknown" if why_unknown(exit_code=exit_code, finished=finished, output=output) else _by_code(exit_code)


def why_unknown(*, exit_code: int, finished: bool, output: str) -> str:
    """Why the run proves nothing; empty when it proves something."""
    if not finished:
        return "it did not finish"
    if exit_code in SHELL_COULD_NOT_RUN:
        return "its command could not be run"
    if ran_no_test(output):
        return "it ran no test"
    return ""


def ran_no_test(output: str) -> bool:
    """Do the closing lines of a test runner say that nothing was tested?"""
    plain = _COLOUR.sub("", output).replace("\r\n", "\n")
    if _all_skipped(plain):
        return True
    return _NOTHING.search(plain) is not None and _SOMETHING.search(plain) is None


def _by_code(exit_code: int) -> Verdict:
    return "pass" if exit_code == 0 else "fail"


def _all_skipped(plain: str) -> bool:
    """unittest counts skipped tests among those that ran."""
    ran = [int(count) for count in _UNITTEST_RAN.findall(plain)]
    skipped = [int(count) for count in _UNITTEST_SKIPPED.findall(plain)]
    return bool(ran) and len(ran) == len(skipped) and sum(ran) == sum(skipped)

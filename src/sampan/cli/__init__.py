"""The command line: parse, call one function, print.

Data goes to stdout, everything else to stderr. Status: 0 done, 1 an error that says what to do, 2 wrong usage, 130
interrupted. An exception that no part of the program foresaw keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sampan.cli.verbs import parser
from sampan.errors import SampanError, UsageError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        status = _run(argv)
        sys.stdout.flush()  # a closed pipe shows here, not at exit
    except BrokenPipeError:
        # the reader has what it wanted; the interpreter must not find the same closed pipe again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        verb, run, arguments = parser().parse(argv)
        try:
            run(arguments)
        except UsageError as error:
            verb.fail(error.what)
    except SystemExit as stop:  # argparse: help, version, wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except SampanError as error:
        sys.stderr.write(f"{error.render()}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nerror: interrupted\n")
        return INTERRUPTED
    return 0

"""The command line: parse, call one function, print.

Data goes to stdout, everything else to stderr. Status: 0 done, 1 an error that says what to do, 2 wrong usage, 130
interrupted. An exception that no part of the program foresaw keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from sampan.cli.verbs import parser
from sampan.errors import SampanError, UsageError

INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # a disk that is full, or that cannot be written


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        status = _run(argv)
        try:
            sys.stdout.flush()  # a closed pipe or a full disk shows here, not at exit
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return _no_room(error, "stdout")
    except BrokenPipeError:
        # the reader has what it wanted; the interpreter must not find the same closed pipe again at exit
        _drop_stdout()
        return 1
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return _no_room(error, f"`{error.filename}`" if error.filename else "a file, or stdout,")
    return status


def _no_room(error: OSError, what: str) -> int:
    """Say that something could not be written, and see to it that the interpreter does not find it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    why = error.strerror or str(error)
    sys.stderr.write(f"{SampanError(f'{what} cannot be written', why, 'make room, or name another place').render()}\n")
    return 1


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if argv is None else argv
        verb, run, arguments = parser(words).parse(words)
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

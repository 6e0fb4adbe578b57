"""argparse as the command line uses it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from sampan.errors import SampanError, did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse with whole option names only, and with errors written as all others are."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def below(self) -> Any:
        """Return where the verbs below this one are added; they are listed in the description, not by argparse."""
        return self.add_subparsers(prog=self.prog, metavar="VERB", required=True, help=argparse.SUPPRESS)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse a command line; what is wrong with it is said by the verb it is for, and ends the process with 2."""
        arguments, unknown = self.parse_known_args(argv)
        if unknown:
            known = set(re.findall(r"--?[a-z][a-z-]*", arguments.verb.format_usage()))
            quotes = "words that belong together stand in quotes"
            near = did_you_mean(unknown[0], known) if unknown[0].startswith("-") else quotes
            arguments.verb.fail(f"there is no place for `{unknown[0]}`", near)
        return arguments

    def error(self, message: str) -> NoReturn:
        """Write argparse's message in our words, and exit."""
        if wrong := re.fullmatch(r"argument (.+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            where, word, choices = wrong.groups()
            known = re.findall(r"[\w-]+", choices)
            if where == "VERB":
                self.fail(f"`{word}` is not a verb", did_you_mean(word, known))
            self.fail(f"{where}: `{word}` is not one of {', '.join(known)}")
        self.fail(re.sub(r"^argument (.+?): ", r"\1: ", message))

    def fail(self, what: str, hint: str | None = None) -> NoReturn:
        """Write an error on stderr and exit with 2."""
        self.exit(2, f"{SampanError(what, (), hint or f'{self.prog} --help').render()}\n")

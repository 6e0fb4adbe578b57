"""argparse as the command line uses it: built from the dataclasses of the verbs, with errors written as all others are."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from typing import Any, NoReturn

from sampan.errors import SampanError, did_you_mean
from sampan.options import options_of


class Parser(argparse.ArgumentParser):
    """argparse with whole option names only, and with errors written as all others are.

    Attributes:
        listing: The verbs below this one, a line each; "" where there are none.
    """

    listing = ""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def below(self) -> Any:
        """Return where the verbs below this one are added; they are listed in the description, not by argparse."""
        self.listing = (self.description or "").partition("verbs:\n")[2]
        return self.add_subparsers(prog=self.prog, metavar="VERB", required=True, help=argparse.SUPPRESS)

    def takes(self, arguments: type, run: Callable[[Any], None]) -> None:
        """Add what the fields of a verb's dataclass declare; `run` is given an instance of it."""
        self.set_defaults(verb=self, arguments=arguments, run=run)
        group: Any = self
        exclusive: Any = None
        for field, default, option in options_of(arguments):
            if option.is_common:
                group, exclusive = self, None
            if option.group:
                group, exclusive = self.add_argument_group(option.group), None
            if option.is_exclusive and exclusive is None:
                exclusive = group.add_mutually_exclusive_group()
            settings: dict[str, Any] = {"help": option.help, "action": option.action}
            if option.name != "":
                settings |= {"dest": field, "required": default is MISSING}
            if option.action != "store_true":
                settings |= {"metavar": option.metavar, "type": option.read, "choices": option.choices}
                settings |= {"nargs": option.nargs} if option.nargs is not None else {}
            if option.const is not None:
                settings["const"] = option.const
            # argparse adds repeated values to a list
            settings["default"] = [] if default == () else None if default is MISSING else default
            names = (field,) if option.name == "" else (option.name or f"--{field.replace('_', '-')}",)
            (exclusive if option.is_exclusive else group).add_argument(*names, **settings)

    def parse(self, argv: Sequence[str] | None) -> tuple[Parser, Callable[[Any], None], Any]:
        """Return a command line's verb, what it runs, and its arguments as the verb's dataclass.

        What is wrong with it is said by the verb it is for, and ends the process with 2.
        """
        parsed, unknown = self.parse_known_args(argv)
        verb: Parser = parsed.verb
        if unknown:
            known = set(re.findall(r"--?[a-z][a-z-]*", verb.format_usage()))
            quotes = "words that belong together stand in quotes"
            near = did_you_mean(unknown[0], known) if unknown[0].startswith("-") else quotes
            verb.fail(f"there is no place for `{unknown[0]}`", near)
        values = {field: getattr(parsed, field) for field, _, _ in options_of(parsed.arguments)}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return verb, parsed.run, parsed.arguments(**values)

    def error(self, message: str) -> NoReturn:
        """Write argparse's message in our words, and exit."""
        if wrong := re.fullmatch(r"argument (.+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            where, word, choices = wrong.groups()
            known = re.findall(r"[\w-]+", choices)
            if where == "VERB":
                self.fail(f"`{word}` is not a verb", did_you_mean(word, known))
            self.fail(f"{where}: `{word}` is not one of {', '.join(known)}")
        if message == "the following arguments are required: VERB":
            self.exit(2, f"error: `{self.prog}` needs one of its verbs\n\n{self.listing}\n\nhint: {self.prog} --help\n")
        self.fail(re.sub(r"^argument (.+?): ", r"\1: ", message))

    def fail(self, what: str, hint: str | None = None) -> NoReturn:
        """Write an error on stderr and exit with 2."""
        self.exit(2, f"{SampanError(what, (), hint or f'{self.prog} --help').render()}\n")

"""Flags and what may follow them: each kind once. Every error is one line that names the flag, the word and the fix."""

import argparse
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NoReturn

from sb3_genoffline.common.arguments import Bounds, Count, NonNegative, PositiveInt, nearest
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.program import IN_CHECKOUT, PROGRAM
from sb3_genoffline.registry import ALGOS

from .devices import check_device
from .hyperparameters import as_number
from .places import folder, output_file, output_folder
from .refusals import refusal_of

Seed = Annotated[int, Bounds(0, 2**32 - 1)]
"""What numpy takes for one."""
_Jobs = Annotated[int, Bounds(1, 1024)]
_NEGATIVE = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)
_Default = Literal[-1]
"""As in rl-zoo: it leaves the number to the program."""


class FlagParser(argparse.ArgumentParser):
    """Takes no abbreviations, and tells a misspelt flag or word what it may have been meant to be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._negative_number_matcher = _NEGATIVE  # with exponents, which Python 3.11's takes for flags

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class's, but what is not known is an error here, where its neighbours are known."""
        found, rest = super().parse_known_args(args, namespace)
        if rest and rest[0].startswith("-"):
            self.error(f"there is no flag {short(rest[0])}{nearest(rest[0].partition('=')[0], self._option_string_actions)}")
        if rest:
            self.error(f"{short(rest[0])} is one word too many: it belongs to no flag.")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            there_are = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"{short(value)} is not known{nearest(value, action.choices)} There are: {there_are}."
            )

    def format_help(self) -> str:
        """As the base class's, with commands named as they are typed here."""
        self.description = _as_typed(self.description)
        for action in self._actions:
            action.help = _as_typed(action.help)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        self.exit(2, f"{self.prog}: {printable(message)} (--help lists the flags)\n")


def _as_typed(text: str | None) -> str | None:
    return text and text.replace(f"{IN_CHECKOUT} ", f"{PROGRAM} ")


def _number(hint: Any) -> Callable[[str], Any]:
    """argparse's ``type`` from the annotation of a number; ``1e6`` is a whole number too."""

    def read(word: str) -> Any:
        value = as_number(word)
        wrong = misfit(word if value is None else value, hint)
        if wrong is not None:
            raise argparse.ArgumentTypeError(f"{short(word)} {wrong}.")
        return value

    return read


positive, count, real = _number(PositiveInt), _number(Count), _number(float)
seed_number, random_or_seed = _number(Seed), _number(_Default | Seed)
jobs, chosen_or_threads = _number(_Jobs), _number(_Default | _Jobs)
never_or_every = _number(_Default | Count)
log_interval = _number(Literal[-1, -2] | PositiveInt)
discount = share = _number(Annotated[float, Bounds(0.0, 1.0, open_high=True)])
inner_share = _number(Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)])
pixels = _number(Annotated[int, Bounds(16, 7680)])
niceness = _number(Annotated[int, Bounds(0, 19)])
not_negative = share_of_gpus = _number(NonNegative)


def _of_sentences(check: Callable[[str], str]) -> Callable[[str], str]:
    """argparse's ``type`` from what raises a :class:`UserError`."""

    def read(word: str) -> str:
        try:
            return check(word)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


@_of_sentences
def algorithm(word: str) -> str:
    """argparse's ``type`` of a name in ``ALGOS``."""
    if word not in ALGOS:
        near = nearest(word.lower().replace("-", "_"), ALGOS)
        raise UserError(f"{short(word)} is not known{near} There are: {', '.join(ALGOS)}.")
    return word


device = _of_sentences(check_device)
"""argparse's ``type`` of a device that is here."""
picture_file, new_folder, a_folder = map(_of_sentences, (output_file, output_folder, folder))
json_file, film_file, markdown_file, csv_file, onnx_file, hdf5_file = (
    _of_sentences(partial(output_file, suffix=end)) for end in (".json", ".mp4", ".md", ".csv", ".onnx", ".hdf5")
)


def sentence_of(error: Exception) -> str | None:
    """
    :param error: that ended a command
    :return: what to tell of a mistake in what was asked, or of an outside that refused or did not answer; None of a bug
    """
    if isinstance(error, UserError | ConnectionError):
        return str(error)
    return refusal_of(error)

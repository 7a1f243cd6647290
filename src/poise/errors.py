"""The exceptions and warnings of Poise.

PoiseError                           anything Poise refuses or gives up on
├── InputError (ValueError)          a value, row, key or file is not usable; says which, and what to do
│   └── MemorisedRowsError           rows that trained the representation were asked to select or calibrate
├── MissingExtraError (ImportError)  an optional package is absent; says what to install
├── StoppedError                     a signal asked a run to stop; everything is saved
└── CancelledError                   the caller's `cancelled` answered true

PoiseWarning (UserWarning)           the work goes on, with a remark that belongs in the record
"""

import unicodedata

__all__ = [
    "CancelledError",
    "InputError",
    "MemorisedRowsError",
    "MissingExtraError",
    "PoiseError",
    "PoiseWarning",
    "StoppedError",
    "in_one_line",
    "printed",
    "reason_of",
]


REASON = 300  # characters of what a library says
LONGEST = 2000  # characters of a message; what is longer holds the content of a file, and is cut in the middle


def in_one_line(said: object) -> str:
    """Text for a terminal: one line, control characters (escape sequences too) escaped, cut if long."""
    text = str(said)
    # What is cut anyway is not escaped first: it may be a whole file.
    text = printed(text if len(text) <= 4 * LONGEST else f"{text[: 2 * LONGEST]}{text[-2 * LONGEST :]}")
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def printed(text: str) -> str:
    """Text of any length as a terminal may have it: control characters (escape sequences too) escaped."""
    return text if text.isprintable() else "".join(map(_printed, text))


def _printed(character: str) -> str:
    if character.isprintable():
        return character
    return character if unicodedata.category(character) == "Zs" else ascii(character)[1:-1]


class Message(str):
    """The text of an error or a warning that is raised anew later; it keeps the arguments that it names."""

    arguments: tuple[str, ...]

    def __new__(cls, said: object) -> "Message":
        """The text of `said`."""
        message = super().__new__(cls, said)
        message.arguments = getattr(said, "arguments", ())
        return message


class PoiseError(Exception):
    """Base of every error that Poise raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 2


class _Mendable:
    """A message, and those words of it that name an argument which would help, as Python writes it.

    `InputError(f"{path} has several splits; name one (split=)", "(split=)")`: who takes arguments under other names, as
    the command line does, says those names instead of the words.

    `arguments`: these words, in any order; none where no argument helps.
    """

    arguments: tuple[str, ...]

    def __init__(self, message: object = "", *arguments: str) -> None:
        super().__init__(in_one_line(message))  # type: ignore[call-arg]  # that of the exception beside it
        self.arguments = arguments or getattr(message, "arguments", ())


class InputError(_Mendable, PoiseError, ValueError):
    """A value, row, key or file cannot be used; the message names it, and the remedy."""


class MemorisedRowsError(InputError):
    """Rows that trained the representation cannot select, calibrate or estimate a prior."""


class MissingExtraError(PoiseError, ImportError):
    """An optional package is not installed; the message holds the install command."""


class StoppedError(PoiseError):
    """A training was asked to stop; everything up to `step` is saved. `exit_code` is that of the signal."""

    exit_code = 143

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after step {step} of {steps}, which is saved; the same command goes on from there")
        self.step = step


class CancelledError(PoiseError):
    """The caller asked to stop; nothing was returned and nothing was changed."""


class PoiseWarning(_Mendable, UserWarning):
    """A remark about work that goes on; it belongs in the record of the run."""


def reason_of(error: BaseException) -> str:
    """What an error of a library or of the disk says, for a sentence: its first line, else its type."""
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    if isinstance(error, KeyError):
        said = f"{error} is missing"
    return in_one_line(str(said).splitlines()[0].rstrip("."))[:REASON]

"""The exceptions and warnings of Poise.

PoiseError                           anything Poise refuses or gives up on
├── InputError (ValueError)          a value, row, key or file is not usable; says which, and what to do
│   └── MemorisedRowsError           rows that trained the representation were asked to select or calibrate
├── MissingExtraError (ImportError)  an optional package is absent; says what to install
└── CancelledError                   the caller's `cancelled` answered true

PoiseWarning (UserWarning)           the work goes on, with a remark that belongs in the record
"""

__all__ = ["CancelledError", "InputError", "MemorisedRowsError", "MissingExtraError", "PoiseError", "PoiseWarning"]


class PoiseError(Exception):
    """Base of every error that Poise raises on purpose."""


class InputError(PoiseError, ValueError):
    """A value, row, key or file cannot be used; the message names it, and the remedy."""


class MemorisedRowsError(InputError):
    """Rows that trained the representation cannot select, calibrate or estimate a prior."""


class MissingExtraError(PoiseError, ImportError):
    """An optional package is not installed; the message holds the install command."""


class CancelledError(PoiseError):
    """The caller asked to stop; nothing was returned and nothing was changed."""


class PoiseWarning(UserWarning):
    """A remark about work that goes on; it belongs in the record of the run."""

"""What a user of the command line can do about an error: the one place where flags meet errors.

Library errors carry a key (`RealesrError.advice`); its sentence is added to the message here.
"""

from __future__ import annotations

from realesr_cli.errors import RealesrError

ADVICE: dict[str, str] = {}
"""Sentence by key. Every key that the library uses is here, and every key here is used."""


def message_with_advice(error: RealesrError) -> str:
    """Return the error's message, followed by its advice if it has one."""
    text = str(error)
    if not error.advice:
        return text
    return f"{text}. {ADVICE[error.advice]}"

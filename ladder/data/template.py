"""Chat templates are programs that others wrote: transformers runs them in Jinja's sandbox, where they reach neither
files nor Python's own attributes, and whatever goes wrong in one is said as an error of the data.

The sandbox does not count steps: a template of loops inside loops runs until somebody interrupts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ladder.errors import DataError, said


def read_template(path: Path) -> str:
    """The template in a file.

    Raises:
        DataError: the file cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {said(error)}", where=str(path), remedy="a template in UTF-8") from error


def rendered(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, str]], *, opening: bool, where: str
) -> str:
    """A conversation as the chat template writes it.

    Args:
        opening: add the start of the assistant's turn.
        where: the row or question, for messages.

    Raises:
        DataError: the template refuses the conversation, or is none.
    """
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opening)
    except Exception as error:  # a template can divide by zero, or add a text to a number
        raise DataError(
            f"the chat template refuses this conversation: {said(error)}",
            where=where,
            remedy="write the roles in an order that it knows, or name another one in data.chat_template",
        ) from error
    return str(text)

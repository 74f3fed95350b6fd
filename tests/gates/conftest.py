"""The tiny model of the exam."""

from tests.exam.conftest import model, tiny_folder, tokenizer  # noqa: F401

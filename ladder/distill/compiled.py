"""Compile a function where a compiler is at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import TypeVar, cast

import torch

F = TypeVar("F", bound=Callable)


@cache
def has_compiler(device: str) -> bool:
    """Whether ``torch.compile`` can make code for this kind of device: Triton on a GPU, a C++ compiler on a CPU."""
    if device != "cpu":
        return find_spec("triton") is not None
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return bool(get_cpp_compiler())
    except Exception:
        # Whatever is missing, the answer is the same, and the eager function gives the same numbers.
        return False


def compiled(function: F) -> F:
    """The function in compiled form, for any number of rows and columns.

    Its first call takes some seconds, less where the compiler's cache on disk has it already. The compiler counts
    variants by code object and gives up after eight, so each function gets a code object of its own; past that it runs
    the function as it is, which gives the same numbers.
    """
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, None, function.__closure__)
    return cast(F, torch.compile(own, dynamic=True))

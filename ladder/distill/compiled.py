"""Compile a function where a compiler is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import TypeVar, cast

import torch

F = TypeVar("F", bound=Callable)
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


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
    _separate_caches()
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, None, function.__closure__)
    return cast(F, torch.compile(own, dynamic=True))


def _separate_caches() -> None:
    """Give each instruction set a cache of its own: the compiler's does not tell them apart, and code that was made for
    another one crashes or computes something else. A folder that a person has named stays."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch writes its own choice into the environment.
    if os.environ.get(_CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[_CACHE] = f"{default_cache_dir()}_{torch.backends.cpu.get_cpu_capability().lower()}"

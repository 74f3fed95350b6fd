"""Generation names, such as ``Luna-G010``, and references to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ladder.errors import ManifestError, UsageError

LONGEST_FAMILY = 64
_FAMILY = r"(?P<family>[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*)"
NAME = re.compile(_FAMILY + r"-G(?P<index>[0-9]{3,6})")
FAMILY = re.compile(_FAMILY)
_REFERENCE = re.compile(NAME.pattern + r"(?:\.(?P<attempt>[1-9][0-9]*))?")
_HEAD = re.compile(_FAMILY + "@(?i:HEAD)")
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, order=True)
class Name:
    """A generation's name: its family and its index in that family (``Luna``, 10 for ``Luna-G010``)."""

    family: str
    index: int

    def __str__(self) -> str:
        return f"{self.family}-G{self.index:03d}"

    @classmethod
    def parse(cls, text: str, *, where: str | None = None) -> Name:
        """Read ``{family}-G{NNN}``.

        Raises:
            ManifestError: the text is no generation name.
        """
        match = NAME.fullmatch(text)
        if match is None or str(name := cls(match["family"], int(match["index"]))) != text:
            raise ManifestError(
                f"{text!r} is no generation name",
                where=where,
                remedy="write it as family, -G and at least three digits: Luna-G010",
            )
        if len(name.family) > LONGEST_FAMILY:
            raise ManifestError(
                f"found a family of {len(name.family)} characters, expected at most {LONGEST_FAMILY}",
                where=where,
                remedy="shorten it: it names folders and registered models",
            )
        return name


@dataclass(frozen=True)
class Reference:
    """What a person types to mean one generation: HEAD, a name, an attempt of a name, or the start of a digest."""

    family: str | None = None
    index: int | None = None
    attempt: int | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``Luna@HEAD`` or ``Luna@head``, ``Luna-G010``, ``Luna-G010.2``, or six hex digits of a digest or more.

        Raises:
            UsageError: the text is none of these.
        """
        if match := _HEAD.fullmatch(text):
            return cls(family=match["family"])
        if match := _REFERENCE.fullmatch(text):
            attempt = int(match["attempt"]) if match["attempt"] else None
            return cls(family=match["family"], index=int(match["index"]), attempt=attempt)
        if _DIGEST.fullmatch(text):
            return cls(digest=text)
        raise UsageError(
            f"{text!r} names no generation",
            remedy="use Luna@HEAD, Luna-G010, Luna-G010.2 (second attempt) or the first digits of a digest",
        )


def run_name(child: Name, manifest_digest: str) -> str:
    """The folder of a child's run with a manifest, below ``home/runs``."""
    return f"{child}/{manifest_digest[:16]}"

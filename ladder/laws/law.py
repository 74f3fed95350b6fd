"""What a law says and what became of it: violations, findings, and the line of the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ladder.errors import GateError
from ladder.exam import SAMPLED

Family = Literal["request", "training", "text", "figure"]
"""What a law examines: what was asked for, how it was trained, each text of the child, or one figure of them all."""


CONFIDENCE = 0.95
"""Of the upper bound that a report gives for how often a law is broken."""
TOLERANCE = 1e-9
"""Of limits and thresholds, so that 0.95 >= 1.0 - 0.05 holds. Far below the share of one probe in any exam."""


def upper_bound(found: int, n: int) -> float:
    """One-sided 95% upper bound of a rate, 0 to 1: the rate at which ``found`` or fewer of ``n`` come out in 5% of all
    samples (C. Clopper and E. Pearson, "The use of confidence or fiducial limits", Biometrika 1934). With nothing found
    it is 1 - 0.05^(1/n).

    Raises:
        GateError: not 0 <= found <= n, or n is 0.
    """
    if n < 1 or not 0 <= found <= n:
        raise GateError(f"found {found} of {n}, expected 0 to n of a sample of 1 or more", where="upper bound")
    if found == n:
        return 1.0
    # Here, because it takes a second to import. The quantile itself, and not binomtest(...).proportion_ci, which looks
    # for it by bisection to 2e-12: other digits than stored reports have, 5e-8 of the bound at a million texts, and six
    # times as long.
    from scipy.stats import beta

    return float(beta.ppf(CONFIDENCE, found + 1, n - found))


@dataclass(frozen=True)
class Violation:
    """One broken law.

    Args:
        law: its name, such as ``forbidden_text``.
        found: what was found and what was allowed.
        where: the text, file, teacher or limit it concerns.
    """

    law: str
    found: str
    where: str


@dataclass(frozen=True)
class Findings:
    """What a law examined.

    Args:
        n: things examined: files, limits, teachers or texts.
        violations: what was found in them; several may concern one thing.
        sampled: those of them that are texts sampled at random.
        remark: what a reader should know beside the numbers.
    """

    n: int
    violations: tuple[Violation, ...]
    sampled: int = 0
    remark: str = ""


@dataclass(frozen=True)
class LawResult:
    """One law that was examined, as it stands in the report.

    Args:
        name: as the manifest calls it.
        version: of the law's meaning.
        parameters: what the manifest says of it, as plain JSON.
    """

    name: str
    family: Family
    version: int
    parameters: Mapping[str, Any]
    found: Findings

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of name, version and parameters: equal ones are one rule."""
        rule = {"name": self.name, "version": self.version, "parameters": dict(self.parameters)}
        canonical = json.dumps(rule, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    @property
    def upper_bound(self) -> float | None:
        """How large, with 95% confidence, the share of texts is at most that break it, 0 to 1.

        Of texts like the sampled ones where it reads samples; otherwise of answers to prompts like its own, as far as
        these were drawn at random. None for laws that look at everything there is.
        """
        if self.family != "text" or not self.found.n:
            return None
        broken = {violation.where for violation in self.found.violations}
        if self.found.sampled:
            return upper_bound(len(broken & _names(self.found.sampled)), self.found.sampled)
        return upper_bound(min(len(broken), self.found.n), self.found.n)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON; the violations are counted here and listed once in the report."""
        return {
            "name": self.name,
            "family": self.family,
            "version": self.version,
            "parameters": dict(self.parameters),
            "digest": self.digest,
            "n": self.found.n,
            "violations": len(self.found.violations),
            "sampled": self.found.sampled,
            "upper_bound": self.upper_bound,
            "remark": self.found.remark,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], violations: Iterable[Violation]) -> LawResult:
        """Read what ``to_dict`` wrote, with the violations of the whole report.

        Raises:
            GateError: it contradicts itself.
        """
        own = tuple(violation for violation in violations if violation.law == stored["name"])
        found = Findings(stored["n"], own, stored["sampled"], stored["remark"])
        result = cls(stored["name"], stored["family"], stored["version"], dict(stored["parameters"]), found)
        if result.to_dict() != dict(stored):
            raise GateError(
                f"digest, violations or bound are not those of law {result.name}",
                where="gate report",
                remedy="run the gates again",
            )
        return result


def sampled_sentence(laws: Iterable[LawResult]) -> str:
    """How many of the sampled texts break a law, and how many at most would; empty where no law reads samples."""
    reading = [law for law in laws if law.found.sampled]
    if not reading:
        return ""
    n = max(law.found.sampled for law in reading)
    broken = {violation.where for law in reading for violation in law.found.violations} & _names(n)
    share = upper_bound(len(broken), n)
    return f"{len(broken)} of {n} sampled texts break one, so at most {share:.1%} of such texts do (95% confidence)"


def _names(sampled: int) -> set[str]:
    return {f"{SAMPLED} {number}" for number in range(1, sampled + 1)}

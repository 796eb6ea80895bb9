"""What an audit says: how exact each path to the meta-gradient is, and what stands in its way."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Audit", "Finding", "PathError", "Severity"]

Severity: TypeAlias = Literal["wrong", "slow", "note"]


@dataclass(frozen=True)
class PathError:
    """The relative error of the meta-gradient along one path; infinite where the path cannot run.

    ``tolerance`` is that of the judge: plain autograd, or finite differences, which know fewer digits.
    """

    path: str
    steps: int
    error: float
    tolerance: float

    @property
    def exact(self) -> bool:
        """Whether the error is rounding alone."""
        return self.error <= self.tolerance  # NaN is not


@dataclass(frozen=True)
class Finding:
    """Something about a model that an inner loop minds, or that its owner may think it minds."""

    severity: Severity
    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.severity}: {self.where}: {self.what}"
        return f"{said}\n  {self.remedy}" if self.remedy else said


@dataclass(frozen=True)
class Audit:
    """The errors of every path to the meta-gradient, and findings, the gravest first.

    >>> print(Audit((PathError("mixed, vmap", 1, 2e-16, 1e-10),), (Finding("note", "0", "is tied to 1."),)))
    mixed, vmap                     1 step     2.0e-16
    note: 0: is tied to 1.
    The meta-gradient of this model is exact.
    """

    errors: tuple[PathError, ...]
    findings: tuple[Finding, ...]

    @property
    def exact(self) -> bool:
        """Whether every path runs and agrees with its judge."""
        return bool(self.errors) and all(error.exact for error in self.errors)

    @property
    def verdict(self) -> str:
        """One sentence."""
        return f"The meta-gradient of this model is {'' if self.exact else 'not '}exact."

    def __str__(self) -> str:
        rows = [
            f"{one.path:<30}{one.steps:>3} step{'s' if one.steps > 1 else ' '} {one.error:>10.1e}"
            + ("" if one.exact else f"  more than {one.tolerance:.0e}")
            for one in self.errors
        ]
        return "\n".join([*rows, *map(str, self.findings), self.verdict])

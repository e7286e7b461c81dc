"""One figure: what was measured, against what, and what was aimed at."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path("build/bench")


@dataclass(frozen=True)
class Baseline:
    """What the figure is compared with."""

    what: str
    value: float


@dataclass(frozen=True)
class Aim:
    """The largest (or, with `at_least`, smallest) allowed value of one of a figure's numbers."""

    of: str
    """`ratio`, `value`, `p99` or `added` (value minus baseline)."""
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{self.of} {'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """A measured figure. `value` is the median of `runs` runs (or the rate, for rates), `p99` their 99th percentile."""

    name: str
    unit: str
    value: float
    p99: float | None
    baseline: Baseline | None
    aims: tuple[Aim, ...]
    runs: int

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline.value if self.baseline and self.baseline.value else None

    def number(self, of: str) -> float | None:
        """One of the numbers that an aim can speak of."""
        base = self.baseline.value if self.baseline else 0.0
        return {
            "ratio": self.ratio,
            "value": self.value,
            "p99": self.p99,
            "added": self.value - base,
            "p99 added": None if self.p99 is None else self.p99 - base,
        }[of]

    @property
    def met(self) -> bool:
        """Whether all aims are met."""

        def holds(aim: Aim) -> bool:
            number = self.number(aim.of)
            return number is not None and (number >= aim.limit if aim.at_least else number <= aim.limit)

        return all(holds(aim) for aim in self.aims)

    def as_dict(self) -> dict[str, Any]:
        """The figure as it is written to its file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": round(self.value, 4),
            "p99": None if self.p99 is None else round(self.p99, 4),
            "baseline": asdict(self.baseline) if self.baseline else None,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "aim": ", ".join(map(str, self.aims)),
            "met": self.met,
            "runs": self.runs,
        }

    def save(self) -> None:
        """Writes the figure's file."""
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        (DIRECTORY / f"{self.name}.json").write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")


def percentile(samples: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100) by the nearest-rank method."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]


def in_turn(runs: int, baseline: Callable[[], float], value: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measures baseline and value in turn, so that both see the same machine; returns (baselines, values)."""
    baselines, values = [], []
    for _ in range(runs):
        baselines.append(baseline())
        values.append(value())
    return baselines, values


def compared(
    name: str, unit: str, what: str, baselines: Sequence[float], values: Sequence[float], *aims: Aim
) -> Figure:
    """The figure of samples that were measured in turn: medians, and the 99th percentile of the values."""
    base = Baseline(what, statistics.median(baselines))
    return Figure(name, unit, statistics.median(values), percentile(values, 99), base, aims, len(values))


def table() -> str:
    """All figures in `build/bench`, as a table."""
    rows = [("figure", "value", "p99", "baseline", "ratio", "aim", "met")]
    for path in sorted(DIRECTORY.glob("*.json")):
        f = json.loads(path.read_text())
        base = f"{f['baseline']['value']:.4g} ({f['baseline']['what']})" if f["baseline"] else "-"
        p99 = "-" if f["p99"] is None else f"{f['p99']:.4g}"
        ratio = "-" if f["ratio"] is None else f"{f['ratio']:.3g}"
        met = "yes" if f["met"] else "NO"
        rows.append((f["name"], f"{f['value']:.4g} {f['unit']}", p99, base, ratio, f["aim"] or "-", met))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)

"""Line charts as SVG, in light and dark, with a description for screen readers."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

TEMPLATES = Environment(
    loader=PackageLoader("referral", "web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
# Both are compiled now: an upgrade in place replaces the files while this process serves.
TEMPLATE = TEMPLATES.get_template("line_chart.svg")
STYLE = TEMPLATES.get_template("line_chart.css").render()

_digest = b64encode(sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_digest}'; frame-ancestors 'none'"
)
"""For a picture that is opened by itself: its style and nothing else."""

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 96, 730, 92, 338
MAX_X_TICKS = 7
MAX_DOTS = 62
"""Values that are marked by dots; more of them would cover the lines."""


@dataclass(frozen=True, slots=True)
class LineChart:
    """A value of each series for each start; `unit` says what the values count."""

    title: str
    unit: str
    time_unit: str
    starts: Sequence[datetime]
    series: Mapping[str, Sequence[int]]

    def render(self) -> str:
        """Return the SVG document."""
        highest = max((max(values) for values in self.series.values()), default=0)
        steps = _steps(highest)
        scale = _Scale(len(self.starts), steps[-1])
        return TEMPLATE.render(
            chart=self,
            description=self._describe(),
            style=STYLE,
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
            right=RIGHT,
            bottom=BOTTOM,
            has_dots=len(self.starts) <= MAX_DOTS,
            y_ticks=[{"value": value, "y": scale.y(value)} for value in steps],
            x_ticks=[
                {"x": scale.x(index), "label": f"{self.starts[index]:%Y-%m-%d}"}
                for index in _spread(len(self.starts))
            ],
            lines=[
                {
                    "name": name,
                    "points": [_Point(scale.x(i), scale.y(v)) for i, v in enumerate(values)],
                }
                for name, values in self.series.items()
            ],
        )

    def _describe(self) -> str:
        """Return the totals and the maxima of the series in words."""
        first, last = self.starts[0], self.starts[-1]
        sentences = [f"{self.unit}, from {first:%Y-%m-%d} to {last:%Y-%m-%d}."]
        for name, values in self.series.items():
            most = max(values)
            when = f", at most {most:,} ({self.starts[values.index(most)]:%Y-%m-%d})"
            sentences.append(
                f"{name.capitalize()}: {sum(values):,} in total{when if most else ''}."
            )
        return " ".join(sentences)


class _Point(NamedTuple):
    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.x},{self.y}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a value is in the picture."""

    count: int
    highest: int

    def x(self, index: int) -> float:
        share = index / (self.count - 1) if self.count > 1 else 0.5
        return round(LEFT + 10 + share * (RIGHT - LEFT - 20), 1)

    def y(self, value: int) -> float:
        return round(BOTTOM - value / self.highest * (BOTTOM - TOP), 1)


def _steps(highest: int) -> list[int]:
    """Return 0 and up to six round numbers, of which the last one is not below `highest`."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if highest <= 5 * step:
                return list(range(0, max(highest, 1) + step, step))
        power *= 10


def _spread(count: int) -> list[int]:
    """Return a few indexes at equal distances, beginning with the first one."""
    step = -(-count // MAX_X_TICKS)
    return list(range(0, count, step))

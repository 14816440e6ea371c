"""The picture of docs/scaling.md: `python -m tests.performance.scaling_picture` draws it."""

import math
import sys
from pathlib import Path

from referral.web.line_chart import STYLE
from tests.performance.scaling_plan import LIMITS, shares, table, users_at_limit

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "scaling.svg"
TITLE = "How much of one large server a number of users takes"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 96, 730, 112, 352
X_EXPONENTS, Y_EXPONENTS = range(6, 11), range(-2, 3)


def picture() -> str:
    """Return the share of each limit by the number of users, as SVG with two logarithmic axes."""
    reached = ", ".join(f"{name} at {users_at_limit(name):,.0f}" for name in LIMITS)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc" '
                'lang="en">'
            ),
            f'<title id="title">{TITLE}</title>',
            (
                f'<desc id="desc">Percent of each limit, both axes logarithmic. Users that reach '
                f"100 %: {reached}.</desc>"
            ),
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="title" x="{LEFT}" y="28">{TITLE}</text>',
            *_axes(),
            *(_line(number, name) for number, name in enumerate(LIMITS)),
            "</svg>\n",
        ]
    )


def _axes() -> list[str]:
    parts = [
        f'<text class="unit" x="{LEFT}" y="94">Percent of the limit</text>',
        f'<text class="unit" x="{RIGHT}" y="{BOTTOM + 44}" text-anchor="end">Users</text>',
    ]
    for exponent in Y_EXPONENTS:
        y = _y(10.0**exponent)
        kind = "axis" if exponent in {Y_EXPONENTS[0], 0} else "grid"
        label = f'x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10.0 ** (exponent + 2):,.0f} %'
        parts.append(f'<path class="{kind}" d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text class="tick" {label}</text>')
    for exponent in X_EXPONENTS:
        x = _x(10.0**exponent)
        label = f'x="{x}" y="{BOTTOM + 20}" text-anchor="middle">{10**exponent:,}'
        parts.append(f'<path class="axis" d="M{x} {BOTTOM}v5"/>')
        parts.append(f'<text class="tick" {label}</text>')
    return parts


def _line(number: int, name: str) -> str:
    """Draw a limit with its name above; what is below the axis is left out."""
    x = LEFT + number * 130
    sizes = [10 ** (tenth / 10) for tenth in range(60, 101)]
    points = [(n, shares(n)[name]) for n in sizes]
    line = " ".join(f"{_x(n)},{_y(used)}" for n, used in points if used >= 10.0 ** Y_EXPONENTS[0])
    return (
        f'<g class="s{number}"><path class="line" d="M{x} 54h24"/>'
        f'<text x="{x + 30}" y="58">{name.capitalize()}</text>'
        f'<polyline class="line" points="{line}"/></g>'
    )


def _x(users: float) -> float:
    share = (math.log10(users) - X_EXPONENTS[0]) / (len(X_EXPONENTS) - 1)
    return round(LEFT + 30 + share * (RIGHT - LEFT - 60), 1)


def _y(value: float) -> float:
    share = (math.log10(value) - Y_EXPONENTS[0]) / (len(Y_EXPONENTS) - 1)
    return round(BOTTOM - share * (BOTTOM - TOP), 1)


def main() -> None:
    """Print the table and the limits, and draw the picture."""
    sys.stdout.write(f"{table()}\n\n")
    for name in LIMITS:
        sys.stdout.write(f"{name}: {users_at_limit(name):,.0f} users\n")
    PICTURE.write_text(picture())


if __name__ == "__main__":
    main()

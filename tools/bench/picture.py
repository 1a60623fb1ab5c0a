"""A picture of figures over time, for pages of docs: lines, a bar that is not to be crossed, and what began when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 48, 44
COLOURS = ("#7aa6c2", "#1f5673")
N_TICKS = 6
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line; the area below it is filled."""

    name: str
    at: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Mark:
    """Something that began then."""

    at: float
    name: str


def picture(
    title: str, series: Sequence[Series], marks: Sequence[Mark], *, units: tuple[str, str], bar: float | None = None
) -> str:
    """An SVG image; `units` of what goes across and up; `bar` is drawn across."""
    across, up = units
    end = max((line.at[-1] for line in series if line.at), default=1.0)
    top = 1.08 * max([bar or 0.0, *(value for line in series for value in line.values)])

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text((LEFT, 20), title, "start", "#111", size=15),
    ]
    for line, colour in zip(series, COLOURS, strict=False):
        points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in _thinned(line))
        lines.append(f'<path d="M{x(0):.1f},{y(0):.1f} L{points} L{x(end):.1f},{y(0):.1f} Z" fill="{colour}"/>')
    for i, (line, colour) in enumerate(zip(series, COLOURS, strict=False)):
        lines.append(f'<rect x="{LEFT + 150 * i}" y="29" width="12" height="12" fill="{colour}"/>')
        lines.append(_text((LEFT + 18 + 150 * i, 40), line.name, "start", "#111"))
    for value in _ticks(top):
        lines.append(_line((LEFT, y(value)), (WIDTH - RIGHT, y(value)), "#ccc"))
        lines.append(_text((LEFT - 6, y(value) + 4), f"{value:g}", "end", "#444"))
    for value in _ticks(end):
        lines.append(_text((x(value), HEIGHT - BOTTOM + 16), f"{value:g}", "middle", "#444"))
    if bar is not None:
        lines.append(
            _line((LEFT, y(bar)), (WIDTH - RIGHT, y(bar)), "#b03030", 'stroke-width="2" stroke-dasharray="6 4"')
        )
        lines.append(_text((WIDTH - RIGHT, y(bar) - 5), f"cap: {bar:g} {up}", "end", "#b03030"))
    for i, mark in enumerate(marks):
        lines.append(_line((x(mark.at), TOP), (x(mark.at), HEIGHT - BOTTOM), "#555", 'stroke-dasharray="2 3"'))
        lines.append(_text((x(mark.at) + 4, TOP + 12 + 14 * i), mark.name, "start", "#111"))
    lines.append(_text((WIDTH - RIGHT, HEIGHT - 10), across, "end", "#444"))
    lines.append(_text((10, TOP - 6), up, "start", "#444"))
    return "\n".join([*lines, "</svg>", ""])


def _thinned(line: Series) -> list[tuple[float, float]]:
    """Of each run of points the one that is highest, so that no peak is lost: one for each point of the screen."""
    run = max(1, len(line.at) // WIDTH)
    pairs = list(zip(line.at, line.values, strict=True))
    return [max(pairs[i : i + run], key=lambda pair: pair[1]) for i in range(0, len(pairs), run)]


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 on."""
    rough = end / N_TICKS
    power = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 0.1
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    return [step * i for i in range(int(end / step) + 1)]


def _line(begin: Point, end: Point, colour: str, more: str = "") -> str:
    where = f'x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {where} stroke="{colour}" {more}/>'


def _text(at: Point, text: str, anchor: str, colour: str, size: int = 12) -> str:
    where = f'x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"'
    return f"<text {where}>{escape(text)}</text>"

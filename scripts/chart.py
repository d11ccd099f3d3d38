"""Line charts as SVG, for scripts/evaluate. The same figures give the same file; it can be read on light and on dark pages."""

from xml.sax.saxutils import escape

WIDTH, PANEL_HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 34, 46
LEGEND_HEIGHT = 30
STEEP = 0.05  # the share of a panel in which lines may come from below
# Told apart by people who do not see red and green, and on white and black (Okabe and Ito).
COLOURS = ["#888888", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442", "#aa4499"]
STYLE = """
text { font: 13px sans-serif; fill: #333 }
.title { font-weight: bold }
.axis { stroke: #333; fill: none }
.grid { stroke: #333; stroke-opacity: 0.15 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .axis, .grid { stroke: #ddd } }
"""


def ticks(low: float, high: float, count: int) -> list:
    """Round numbers from the last below `low` to the first above `high`, about `count` steps."""
    span = max(high - low, 1e-9)
    power = 10.0
    while power > span / count:
        power /= 10
    while power * 10 <= span / count:
        power *= 10
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span)
    first = int(low // step)
    last = first
    while last * step < high:
        last += 1
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def chart(panels: list, names: list, x_label: str) -> str:
    """Panels below each other. A panel is a title and, for each of `names` in order, a list of points (x, low, middle, high); it
    draws the middle as a line in the area from low to high."""
    height = len(panels) * PANEL_HEIGHT + LEGEND_HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<style>{STYLE}</style>",
    ]
    for index, (title, lines) in enumerate(panels):
        parts.append(f'<g transform="translate(0 {index * PANEL_HEIGHT})">')
        parts += panel(title, lines, x_label)
        parts.append("</g>")
    parts += legend(names, height - LEGEND_HEIGHT / 2)
    return "\n".join([*parts, "</svg>", ""])


def panel(title: str, lines: list, x_label: str) -> list:
    points = [point for line in lines for point in line]
    if not points:
        return []
    x_ticks = ticks(0, max(x for x, *_ in points), 8)
    # A steep beginning would leave no room for what comes later.
    late = [low for x, low, *_ in points if x >= STEEP * x_ticks[-1]]
    y_ticks = ticks(min(late), max(high for *_, high in points), 5)
    right, bottom = WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM

    def x(value):
        return LEFT + (right - LEFT) * value / x_ticks[-1]

    def y(value):
        return bottom - (bottom - TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    def path(places):
        return " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in places)

    parts = [f'<text class="title" x="{LEFT}" y="{TOP - 14}">{escape(title)}</text>']
    for value in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in x_ticks:
        parts.append(f'<path class="axis" d="M{x(value):.1f} {bottom}v5"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 19}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 37}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<svg x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" viewBox="{LEFT} {TOP} {right - LEFT} {bottom - TOP}">')
    for colour, line in zip(COLOURS, lines):
        if line:
            area = [(at, high) for at, _, _, high in line] + [(at, low) for at, low, _, _ in reversed(line)]
            parts.append(f'<polygon points="{path(area)}" fill="{colour}" fill-opacity="0.18"/>')
            middle = [(at, value) for at, _, value, _ in line]
            parts.append(f'<polyline points="{path(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return [*parts, "</svg>"]


def legend(names: list, y: float) -> list:
    parts = []
    step = (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    for index, (colour, name) in enumerate(zip(COLOURS, names)):
        x = LEFT + index * step
        parts.append(f'<path d="M{x:.1f} {y:.1f}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 30:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
    return parts

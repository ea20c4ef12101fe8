"""The plot of docs/codebooks.md: bits a weight against the divergence from float, as SVG.

Reads the tables that `benchmarks.codebook_accuracy` printed, from files or a pipe:

    python -m benchmarks.codebook_accuracy --part weights > weights.txt
    python -m benchmarks.tradeoff_plot weights.txt docs/codebooks.svg
"""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

Points = list[tuple[float, float, str]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 380, 64, 48, 24, 16
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")
LOWEST, HIGHEST = 0.02, 5.0
FEWEST_BITS, MOST_BITS = 1.9, 4.3


def main(
    table: Annotated[Path, typer.Argument(help="What the benchmark printed.")],
    out: Annotated[Path, typer.Argument(help="The SVG file to write.")],
) -> None:
    """Draw the plot."""
    out.write_text(svg(read_points(table.read_text(encoding="utf-8"))), encoding="utf-8")


def read_points(text: str) -> dict[str, Points]:
    """Network -> (bits stored, KL, name) of each row of weights alone."""
    found: dict[str, Points] = {}
    network = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0].endswith(", float"):
            network = cells[0].removesuffix(", float")
        if network and re.fullmatch(r"[\d.]+ bits", cells[0]):
            found.setdefault(network, []).append((float(cells[1]), float(cells[7]), cells[0]))
    return found


def svg(networks: dict[str, Points]) -> str:
    """The plot: filled marks for the same width everywhere, hollow ones for bits spent by sensitivity."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for divergence in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0):
        y = _y(divergence)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{divergence:g}</text>')
    parts += [
        f'<text x="{_x(bits):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{bits:g}</text>'
        for bits in (2.0, 2.5, 3.0, 3.5, 4.0)
    ]
    label = "bits a weight, tables and scales included"
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">KL(float || compressed), nats: lower is better</text>')
    for number, (network, points) in enumerate(networks.items()):
        colour = COLOURS[number % len(COLOURS)]
        for bits, divergence, name in points:
            fill = colour if float(name.split()[0]).is_integer() else "white"
            place = f'cx="{_x(bits):.1f}" cy="{_y(divergence):.1f}"'
            title = f"<title>{network}, {name}: KL {divergence:.4f}</title>"
            parts.append(f'<circle {place} r="5" fill="{fill}" stroke="{colour}" stroke-width="2">{title}</circle>')
        parts.append(f'<text x="{WIDTH - RIGHT - 150}" y="{TOP + 16 * number + 8}" fill="{colour}">{network}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(bits: float) -> float:
    return LEFT + (bits - FEWEST_BITS) / (MOST_BITS - FEWEST_BITS) * (WIDTH - LEFT - RIGHT)


def _y(divergence: float) -> float:
    share = math.log(min(max(divergence, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


if __name__ == "__main__":
    typer.run(main)

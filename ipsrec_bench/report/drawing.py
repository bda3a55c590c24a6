"""What all charts share: their form, their colours, and how they become files.

Text and rules take the colour of the page around them, so that a chart is readable in dark mode, too; in a separate
file they are dark grey.
"""

import itertools
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from ipsrec_bench.report.renderer import pdf_of, svg_of
from ipsrec_bench.words import visible

WIDTH = 480
TEXT, TITLE = 12, 14
"""Sizes of letters, in pixels."""
LEGEND_COLUMNS = 3
GRADIENT = 300
MOST_LETTERS = 50
"""Maximum number of letters of a file name, which may have 255 bytes."""
FONT = "Liberation Sans, Arial, Arimo, Helvetica, sans-serif"
"""The renderer ships and measures the first; letters of the others, except the last, have the same widths."""
TITLE_LETTERS = 46
"""Maximum number of letters in a line of a title, so that it fits a small screen."""
MOST_TICKS = 12
MARGIN = 24
"""Minimum number of pixels on both sides; a longer text gets one for each of its letters, because a letter may be up to
a pixel wider in another font than the renderer's."""
PAGE_INK, FILE_INK = "currentColor", "#333333"


@dataclass(frozen=True)
class Chart:
    """One chart."""

    name: str
    """Of its files: words, after a number that makes it unique."""
    section: str
    title: str
    """What it shows, in a sentence."""
    spec: dict[str, Any]
    dataset: str
    """The dataset that it is about, by which the page is filtered."""
    link: str = ""
    """Its id on the page."""

    @property
    def wide(self) -> bool:
        """Whether it has several panels side by side, so that it takes the whole width of the page."""
        return bool({"concat", "hconcat"} & self.spec.keys())

    @cached_property
    def svg(self) -> str:
        """SVG text for the page, labelled for screen readers."""
        return svg_of(self.spec)

    @cached_property
    def svg_file(self) -> str:
        """SVG text for a separate file, which cannot take a colour from a page around it."""
        return re.sub(rf'( (?:fill|stroke)="){PAGE_INK}"', rf'\g<1>{FILE_INK}"', self.svg)

    @cached_property
    def pdf_file(self) -> bytes:
        """PDF file."""
        return pdf_of(self.svg_file)


def inline(values: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Return `values` as data inside the chart."""
    return alt.InlineData(values=[dict(value) for value in values])


def whole_ticks(values: Iterable[int], most: int = MOST_TICKS) -> alt.Axis:
    """Return an axis with at most `most` + 1 ticks, all of them whole numbers between the least and greatest value."""
    values = [*values]
    low, high = min(values), max(values)
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if high - low <= most * step)
    return alt.Axis(values=[*range(-(-low // step) * step, high + 1, step)], format="d")


def draw(name: str, section: str, dataset: str, title: str, chart: Any) -> Chart:  # noqa: ANN401 (altair's charts share no useful base)
    """Return an Altair chart in the style of all charts.

    Args:
        name: of its files.
        section: of the page that shows it.
        dataset: that it is about.
        title: what it shows, in a sentence.
        chart: Altair's.
    """
    lines = textwrap.wrap(visible(title), TITLE_LETTERS, break_on_hyphens=False)
    configured = (
        chart.properties(title=alt.Title(lines, anchor="start", fontSize=TITLE, fontWeight="normal", limit=0))
        .configure(background="transparent", font=FONT)
        .configure_title(color=PAGE_INK)
        .configure_axis(
            labelColor=PAGE_INK,
            titleColor=PAGE_INK,
            domainColor=PAGE_INK,
            tickColor=PAGE_INK,
            gridColor=PAGE_INK,
            gridOpacity=0.15,
            labelFontSize=TEXT,
            titleFontSize=TEXT,
            titleFontWeight="normal",
            titlePadding=10,
        )
        .configure_axisQuantitative(labelFlush=False, labelOverlap="parity", labelSeparation=6)
        .configure_legend(
            labelColor=PAGE_INK,
            titleColor=PAGE_INK,
            symbolStrokeWidth=2,
            symbolSize=110,
            labelFontSize=TEXT,
            titleFontSize=TEXT,
            titleFontWeight="normal",
            labelLimit=0,
            orient="bottom",
            columns=LEGEND_COLUMNS,
            gradientLength=GRADIENT,
            labelOverlap="parity",
        )
        .configure_text(color=PAGE_INK)
        .configure_view(stroke=None)
    )
    spec = _printable(configured.to_dict() | {"description": title})
    texts = (value for rows in spec["datasets"].values() for row in rows for value in row.values())
    beside = max([MARGIN, *(_letters(text) for text in texts if isinstance(text, str))])
    spec["padding"] = {"top": 5, "bottom": 5, "left": beside, "right": beside}
    return Chart(re.sub(r"[^\w.-]+", "_", name)[:MOST_LETTERS], section, title, spec, dataset)


def _letters(text: str) -> int:
    """Return how many letters of the Latin alphabet are about as wide."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def _printable(value: Any) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Return `value` with control characters written out: names may contain them, but in XML they end the renderer."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value

"""Lines of a fixed width: the building blocks of the dashboard."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment
from rich.text import Span, Text

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 16
DOT = " · "
Part = tuple[str, str]
"""Text and style."""


def line(*parts: Part | str) -> Text:
    """Return a line that is cut with an ellipsis where the terminal ends."""
    spans: list[Span] = []
    texts = []
    end = 0
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        start, end = end, end + len(text)
        texts.append(text)
        if spans and spans[-1].end == start and spans[-1].style == style:  # one span for a row of equal marks
            spans[-1] = Span(spans[-1].start, end, style)
        elif style:
            spans.append(Span(start, end, style))
    return Text("".join(texts), no_wrap=True, overflow="ellipsis", spans=spans)


def segments(made: Text, console: Console) -> Iterator[Segment]:
    """Yield the segments of a `line`; Rich takes several times as long, because its spans may overlap."""
    end = 0
    for span in made.spans:
        if span.start > end:
            yield Segment(made.plain[end : span.start])
        yield Segment(made.plain[span.start : span.end], console.get_style(span.style))
        end = span.end
    if end < len(made.plain):
        yield Segment(made.plain[end:])


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` in exactly `width` columns of the terminal, cut with an ellipsis where it is longer."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width) if width > 0 else ""
    pad = " " * (width - length)
    return pad + text if right else text + pad


def fit_pair(first: str, second: str, rest: str, width: int) -> str:
    """Return three texts with dots between them in `width` columns; the longer of the first two is cut first.

    The second may be empty.
    """
    room = width - cell_len(rest) - cell_len(DOT) * (2 if second else 1)
    lengths = cell_len(first), cell_len(second)
    if sum(lengths) > room:
        half = max(1, room // 2)
        if lengths[1] <= half:
            first = fit(first, max(1, room - lengths[1])).rstrip()
        elif lengths[0] <= room - half:
            second = fit(second, max(1, room - lengths[0])).rstrip()
        else:
            first, second = fit(first, max(1, room - half)).rstrip(), fit(second, half).rstrip()
    return fit(DOT.join(text for text in (first, second, rest) if text), width)


def facts(parts: Mapping[str, Part], width: int, *, dispensable: Sequence[str]) -> Text:
    """Return parts with dots between them; dispensable ones are dropped, in their order, if the line is too short."""
    kept = dict(parts)
    for name in dispensable:
        if sum(cell_len(text) + cell_len(DOT) for text, _ in kept.values()) - cell_len(DOT) <= width:
            break
        kept.pop(name, None)
    return line(*[part for fact in kept.values() for part in ((DOT, "dim"), fact)][1:])


def bar(shares: Sequence[tuple[float, str]], width: int) -> list[Part]:
    """Return a bar of `width` columns whose beginning is filled by shares of the whole, each with its style."""
    parts: list[Part] = []
    filled, end = 0, 0.0
    for share, style in shares:
        end += share
        least = 1 if share > 0 and filled < width else 0  # so that any progress or failure is visible
        columns = max(least, min(width, int(end * width + 0.5)) - filled)
        parts.append(("━" * columns, style))
        filled += columns
    parts.append(("─" * (width - filled), "bright_black"))
    return [part for part in parts if part[0]]


def sparkline(numbers: tuple[float, ...], width: int = SPARK_WIDTH) -> str:
    """Return the newest `width` values as blocks, scaled between their minimum and maximum."""
    shown = numbers[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in shown)


def clock(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """Return an estimated duration, rounded to its likely precision."""
    if seconds < 55:  # noqa: PLR2004 (what rounds to less than a minute)
        return f"about {max(10, round(seconds / 10) * 10)} s"
    minutes = round(seconds / 60)
    if minutes < 60:  # noqa: PLR2004 (an hour)
        return f"about {minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:  # noqa: PLR2004 (two days)
        return f"about {hours} h {minutes // 10 * 10} min" if minutes >= 10 else f"about {hours} h"  # noqa: PLR2004
    return f"about {round(hours / 24)} days"


def size(count: int) -> str:
    """Return a number of bytes in at most four characters."""
    mega = count / 2**20
    if mega < 1000:  # noqa: PLR2004 (three digits)
        return f"{mega:.0f}M"
    giga = mega / 1024
    return f"{giga:.1f}G" if giga < 10 else f"{giga:.0f}G"  # noqa: PLR2004 (two digits)


def decimal(number: float) -> str:
    """Return a number in at most five characters, if it is below 100,000."""
    if not isfinite(number):
        return str(number)
    return f"{number:.{max(0, 4 - len(str(int(abs(number)))))}f}"


def rate(number: float) -> str:
    """Return a number per second in at most six characters."""
    if number < 100_000:  # noqa: PLR2004 (six characters)
        return f"{number:,.0f}"
    return f"{number / 1000:,.0f}k" if number < 1e6 else f"{number / 1e6:.1f}M"  # noqa: PLR2004


def percent(share: float) -> str:
    """Return a signed share in at most six characters, up to a factor of a thousand."""
    return f"{share:+.1%}" if abs(share) < 1 else f"{share:+.0%}"

"""Charts as SVG text."""

import altair as alt
import vl_convert

from ipsrec_bench.report.content import Curves

# Okabe and Ito's palette, safe for colour-blind readers; the eighth, yellow, is too light for thin lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ((1, 0), (5, 3), (2, 2), (8, 3, 2, 3))


def learning_curves(curves: Curves) -> str:
    """Return the chart of the stop metric after each epoch, one thin line per seed, as SVG.

    Text and rules take the colour of the page around them, so that the chart reads in dark mode as well.
    """
    names = list(dict.fromkeys(row.display for row, _, _ in curves.points))
    models = list(dict.fromkeys(row.model for row, _, _ in curves.points))
    first = {row.display: row for row, _, _ in reversed(curves.points)}
    variants_seen: dict[str, int] = {}
    colours, dashes = [], []
    for name in names:
        model = first[name].model
        colours.append(PALETTE[models.index(model) % len(PALETTE)])
        dashes.append(DASHES[variants_seen.get(model, 0) % len(DASHES)])
        variants_seen[model] = variants_seen.get(model, 0) + 1
    data = alt.InlineData(
        values=[
            {"model": row.display, "seed": seed, "epoch": point.epoch, "valid": point.valid}
            for row, seed, point in curves.points
        ]
    )
    chart = (
        alt.Chart(data, width=560, height=300)
        .mark_line(strokeWidth=1.4, opacity=0.85)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("valid:Q", title=f"validation {curves.stop_metric.upper()}", scale=alt.Scale(zero=False)),
            color=alt.Color("model:N", title=None, sort=names, scale=alt.Scale(domain=names, range=colours)),
            strokeDash=alt.StrokeDash("model:N", title=None, sort=names, scale=alt.Scale(domain=names, range=dashes)),
            detail="seed:N",
        )
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            domainColor="currentColor",
            tickColor="currentColor",
            gridColor="currentColor",
            gridOpacity=0.15,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor="currentColor", symbolStrokeWidth=2, symbolSize=200, labelLimit=0)
        .configure_view(stroke=None)
    )
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    return svg

"""Charts as a reader sees them: whole ticks for whole numbers, and no text cut off or overlapping."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ipsrec_bench.report.charts import charts_of
from ipsrec_bench.report.drawing import whole_ticks
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.study_charts import study_charts

from .planted import built, fill
from .test_report_tuning import study, trial

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0], [0]),
        ([1, 2], [1, 2]),
        ([2, 0, 1], [0, 1, 2]),
        (range(1, 14), list(range(1, 14))),
        (range(1, 31), [5, 10, 15, 20, 25, 30]),
        (range(201), [0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200]),
        ([7, 7], [7]),
    ],
)
def test_axes_of_whole_numbers_have_whole_ticks(values, ticks):
    axis = whole_ticks(values).to_dict()
    assert (axis["values"], axis["format"]) == (ticks, "d")


def axes_of(specification: object, channel: str) -> list[dict]:
    found = []
    if isinstance(specification, dict):
        found += [specification[channel]] if "axis" in specification.get(channel, {}) else []
        for inner in specification.values():
            found += axes_of(inner, channel)
    elif isinstance(specification, list):
        for inner in specification:
            found += axes_of(inner, channel)
    return found


def test_trials_epochs_and_whole_settings_are_counted_in_whole_steps(tmp_path):
    three = [trial(n, {"n_layers": 1 + n % 2, "tau": 1.0 + n}, 0.1 + n / 10) for n in range(3)]
    charts = list(study_charts(study(trials=three, default=three[0].settings, logarithmic=frozenset())))
    history, settings = (next(c for c in charts if kind in c.name) for kind in ("history", "settings"))
    assert {tuple(x["axis"]["values"]) for x in axes_of(history.spec, "x")} == {(0, 1, 2)}
    assert [x["axis"]["values"] for x in axes_of(settings.spec, "x")] == [[1, 2]]
    learning = next(c for c in charts_of(built(fill(tmp_path / "s.duckdb"))) if c.section == "learning")
    (x,) = axes_of(learning.spec, "x")
    assert all(isinstance(value, int) for value in x["axis"]["values"])


MEASURE = """
() => {
  const page = document.documentElement.getBoundingClientRect();
  const faults = [];
  const box = (text) => text.getBoundingClientRect();
  for (const text of document.querySelectorAll("text:empty")) text.remove();
  for (const text of document.querySelectorAll("text")) {
    const b = box(text);
    if (b.left < page.left || b.right > page.right || b.top < page.top || b.bottom > page.bottom)
      faults.push(`cut off: ${text.textContent}`);
  }
  const groups = [...document.querySelectorAll(".role-axis-label, .role-legend-label")];
  for (const axis of document.querySelectorAll(".role-axis")) {
    const title = axis.querySelector(".role-axis-title text");
    for (const label of axis.querySelectorAll(".role-axis-label text"))
      if (title && label.getAttribute("opacity") !== "0" && meet(box(title), box(label)))
        faults.push(`upon each other: ${title.textContent}, ${label.textContent}`);
  }
  function meet(a, b) {
    return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  }
  for (const group of groups) {
    const shown = [...group.querySelectorAll("text")].filter((text) => text.getAttribute("opacity") !== "0");
    shown.forEach((a, i) => shown.slice(i + 1).forEach((b) => {
      if (meet(box(a), box(b))) faults.push(`upon each other: ${a.textContent}, ${b.textContent}`);
    }));
  }
  return faults;
}
"""


@pytest.mark.usefixtures("pictures")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_no_text_of_a_chart_is_cut_off_or_overlaps_in_a_browsers_own_font(tmp_path):
    """Which is wider than the renderer's where Liberation Sans and Arial are not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    report = built(fill(tmp_path / "s.duckdb", datasets=("数据集" * 9,), display=lambda name: f"{name} as published"))
    many = {f"setting_{n}_of_the_model": 0.1 * n for n in range(7)}
    wide = study(name="d-a-study-of-many-settings-0123abcd", default=many, importance=many, logarithmic=frozenset(),
                 trials=[trial(n, {k: v + n for k, v in many.items()}, 0.1 + n / 100) for n in range(12)])  # fmt: skip
    files: list[Path] = [*write_report(report, tmp_path).charts]
    for number, chart in enumerate([*study_charts(study()), *study_charts(wide)]):
        files.append(tmp_path / f"{number}.svg")
        files[-1].write_text(chart.svg_file, encoding="utf-8")
    faults = {}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        for path in files:
            if path.suffix == ".svg":
                page.goto(path.as_uri())
                faults[path.name] = page.evaluate(MEASURE)
        browser.close()
    assert len(faults) > 12
    assert {name: found for name, found in faults.items() if found} == {}


def test_charts_of_an_earlier_report_are_removed(tmp_path):
    report = built(fill(tmp_path / "s.duckdb"))
    before = write_report(report, tmp_path).charts
    own = before[0].with_name("chart-of-mine.svg")
    own.write_text("<svg/>", encoding="utf-8")
    after = write_report(replace(report, curves=(), hits=()), tmp_path).charts
    assert {path.name for path in before} - {path.name for path in after}
    assert {path for path in own.parent.iterdir() if path.suffix in {".svg", ".pdf"}} == {*after, own}

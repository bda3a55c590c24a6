"use strict";
// Sorting, filters and folded details for tables, and interactive charts. Without this script the page shows everything.

const mainRows = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("details"));
const detailsOf = (row) => (row.nextElementSibling?.classList.contains("details") ? row.nextElementSibling : null);
const button = (text, action) => {
  const made = document.createElement("button");
  made.type = "button";
  made.append(text);
  made.addEventListener("click", action);
  return made;
};

function sortable(table) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = text === "" ? NaN : Number(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const sort = button("", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = mainRows(table).sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
      const pairs = rows.map((row) => [row, detailsOf(row)]);
      for (const pair of pairs) body.append(...pair.filter(Boolean));
      table.classList.add("sorted");
    });
    sort.append(...head.childNodes);
    head.append(sort);
    head.setAttribute("aria-sort", "none");
  });
}

function folding(table, tools) {
  const fold = (row, folded) => {
    detailsOf(row).classList.toggle("folded", folded);
    row.querySelector(".more button").setAttribute("aria-expanded", String(!folded));
    row.querySelector(".more button").textContent = folded ? "▸ details" : "▾ details";
  };
  const head = document.createElement("th");
  head.className = "more";
  head.scope = "col";
  head.append("Details");
  table.tHead.rows[0].append(head);
  for (const row of mainRows(table)) {
    const cell = row.insertCell();
    cell.className = "more";
    const open = button("", () => fold(row, open.getAttribute("aria-expanded") === "true"));
    const subject = [...row.cells].slice(0, 4).map((one) => one.textContent.trim()).join(", ");
    open.setAttribute("aria-label", `Details of ${subject}`);
    cell.append(open);
    detailsOf(row).cells[0].colSpan += 1;
    fold(row, true);
  }
  const all = button("Show all details", () => {
    const show = all.getAttribute("aria-expanded") !== "true";
    mainRows(table).forEach((row) => fold(row, !show));
    all.setAttribute("aria-expanded", String(show));
    all.textContent = show ? "Hide all details" : "Show all details";
  });
  all.setAttribute("aria-expanded", "false");
  tools.prepend(all);
}

function filterable(table, tools) {
  const rows = mainRows(table);
  if (rows.length < 5) return;
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter rows";
  input.setAttribute("aria-label", `Filter rows of ${table.getAttribute("aria-label")}`);
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  const texts = new Map(rows.map((row) => [row, `${row.textContent} ${detailsOf(row)?.textContent ?? ""}`.toLowerCase()]));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.misses = !words.every((word) => texts.get(row).includes(word)); });
    choose();
    count.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
  });
  tools.prepend(input, count);
}

// The choice of a dataset and a metric, kept in the address: #comparisons?dataset=tmall&metric=hr%4010

const form = document.querySelector(".choice");
const selects = [...form.querySelectorAll("select")];
const links = [...document.querySelectorAll('a[href^="#"]')].map((link) => [link, link.getAttribute("href").split("?")[0]]);

function fits(part) {
  return selects.every(({ name, value }) => !value || !(name in part.dataset) || part.dataset[name] === value);
}

function choose() {
  document.querySelectorAll("[data-dataset], [data-metric]").forEach((part) => { part.hidden = !fits(part); });
  for (const block of document.querySelectorAll("div.table")) {
    const rows = mainRows(block.querySelector("table"));
    for (const row of rows) {
      row.hidden = Boolean(row.misses) || !fits(row);
      const details = detailsOf(row);
      if (details) details.hidden = row.hidden;
    }
    const shown = rows.filter((row) => !row.hidden).length;
    const columns = [...block.querySelectorAll("thead [data-metric]")];
    const nothing = shown === 0 || (columns.length > 0 && columns.every((column) => column.hidden));
    block.querySelector(".scroll").hidden = nothing;
    block.querySelector(".empty").hidden = !nothing;
    const count = block.querySelector(".count");
    if (count) count.textContent = shown === rows.length ? String(shown) : `${shown} of ${rows.length}`;
  }
}

function query() {
  const chosen = new URLSearchParams(selects.filter((one) => one.value).map((one) => [one.name, one.value]));
  return chosen.size ? `?${chosen}` : "";
}

function relink() {
  for (const [link, target] of links) link.setAttribute("href", target + query());
}

function follow() {
  const [anchor, chosen] = location.hash.slice(1).split("?");
  const wanted = new URLSearchParams(chosen);
  for (const select of selects) {
    const value = wanted.get(select.name) ?? "";
    select.value = [...select.options].some((option) => option.value === value) ? value : "";
  }
  relink();
  choose();
  const target = anchor && document.getElementById(decodeURIComponent(anchor));
  if (!target) return;
  for (let around = target; around; around = around.parentElement) {
    if (around.tagName === "DETAILS") around.open = true;
  }
  target.querySelectorAll(":scope > details.closed").forEach((closed) => { closed.open = true; });
  target.scrollIntoView();
}

function chosenByHand() {
  const anchor = location.hash.slice(1).split("?")[0];
  history.replaceState(null, "", `#${anchor}${query()}`);
  relink();
  choose();
}

// Charts

function answering(figure) {
  const canvas = figure.querySelector(".canvas");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const live = document.createElement("div");
  window
    .vegaEmbed(live, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } })
    .then(() => canvas.replaceChildren(live))
    .catch((error) => console.error(error));
}

function enlarging(figure) {
  if (figure.classList.contains("wide")) return;
  const larger = button("Larger", () => {
    const wide = figure.classList.toggle("wide");
    larger.textContent = wide ? "Smaller" : "Larger";
    figure.scrollIntoView({ block: "nearest" });
  });
  larger.setAttribute("aria-label", `Change the size of the chart ${figure.querySelector(".canvas").getAttribute("aria-label")}`);
  figure.querySelector("figcaption").append(larger);
}

for (const block of document.querySelectorAll("div.table")) {
  const table = block.querySelector("table");
  const tools = block.querySelector(".tools");
  if (table.classList.contains("data")) sortable(table);
  if (table.classList.contains("folds")) folding(table, tools);
  if (table.classList.contains("data")) filterable(table, tools);
}
document.querySelectorAll("figure.chart").forEach(enlarging);
form.hidden = selects.length === 0;
selects.forEach((select) => select.addEventListener("change", chosenByHand));
window.addEventListener("hashchange", follow);
follow();

if (window.vegaEmbed) {
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      near.unobserve(entry.target);
      answering(entry.target);
    }
  }, { rootMargin: "200px" });
  document.querySelectorAll("figure.chart").forEach((figure) => near.observe(figure));
}

const here = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const target = `#${entry.target.getAttribute("aria-labelledby")}`;
    const link = links.find(([one, href]) => href === target && one.closest("nav"))?.[0];
    if (entry.isIntersecting) link?.setAttribute("aria-current", "true");
    else link?.removeAttribute("aria-current");
  }
}, { rootMargin: "-25% 0px -74% 0px" });
document.querySelectorAll("section").forEach((section) => here.observe(section));

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((details) => { details.open = true; });
});
window.addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));

// Theme, tables that sort and filter, legends of charts, films on cards. Without it every page is whole, only still.
"use strict";

const THEMES = ["system", "light", "dark"];

function readTheme() {
  try {
    return THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
  } catch {
    return "system"; // storage is refused, as in some frames
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // it holds for this page
  }
}

setTheme(readTheme()); // before the first paint

function themeButton(button) {
  const show = () => (button.querySelector(".word").textContent = document.documentElement.dataset.theme);
  button.addEventListener("click", () => {
    const now = THEMES.indexOf(document.documentElement.dataset.theme);
    setTheme(THEMES[(now + 1) % THEMES.length]);
    show();
  });
  show();
  button.hidden = false;
}

// ---------------------------------------------------------------- tables

function compare(a, b) {
  const numbers = [Number(a), Number(b)];
  return numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
}

function sortBy(table, index) {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[index];
  const before = head.getAttribute("aria-sort");
  const first = head.classList.contains("word") ? "ascending" : "descending";
  const order = before ? (before === "ascending" ? "descending" : "ascending") : first;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => [row.cells[index].dataset.key, row]);
  keyed.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is empty stays last
    return sign * compare(a, b);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function filterRows(box) {
  const words = box.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = [...box.querySelectorAll("select")].filter((select) => select.value);
  const rows = [...box.querySelector("tbody").rows];
  rows.forEach((row) => {
    const text = row.textContent.toLowerCase();
    const found = words.every((word) => text.includes(word));
    row.hidden = !(found && wanted.every((select) => row.getAttribute(`data-facet-${select.dataset.facet}`) === select.value));
  });
  const shown = rows.filter((row) => !row.hidden).length;
  box.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
}

function dataTable(box) {
  const table = box.querySelector("table");
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => sortBy(table, button.closest("th").cellIndex));
  });
  const form = box.querySelector("form");
  if (!form) return;
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const column = event.target.dataset.column;
    if (column === undefined) return filterRows(box);
    for (const row of table.rows) if (row.cells[column]) row.cells[column].hidden = !event.target.checked;
  });
  filterRows(box);
}

// ---------------------------------------------------------------- charts, code, films

function legend(section) {
  const buttons = [...section.querySelectorAll(".legend button")];
  const marks = [...section.querySelectorAll("svg [data-series]")];
  const pinned = new Set();
  const show = (also) => {
    const lit = new Set(pinned);
    if (also !== undefined) lit.add(also);
    marks.forEach((mark) => mark.classList.toggle("dim", lit.size > 0 && !lit.has(mark.dataset.series)));
  };
  buttons.forEach((button) => {
    const series = button.dataset.series;
    button.addEventListener("click", () => {
      const on = !pinned.delete(series);
      if (on) pinned.add(series);
      button.setAttribute("aria-pressed", String(on));
      show();
    });
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => show(series));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => show());
  });
}

function copyButton(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.firstChild.textContent = "Copied";
    setTimeout(() => (button.firstChild.textContent = "Copy"), 1500);
  });
}

function filmCard(card) {
  const film = card.querySelector("video");
  if (!film || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const event of ["pointerenter", "focusin"]) card.addEventListener(event, () => film.play().catch(() => {}));
  for (const event of ["pointerleave", "focusout"]) card.addEventListener(event, () => film.pause());
}

addEventListener("DOMContentLoaded", () => {
  const all = (selector, act) => document.querySelectorAll(selector).forEach(act);
  all("button.theme", themeButton);
  all(".data-table", dataTable);
  all(".charts", legend);
  all("button.copy", copyButton);
  all(".card", filmCard);
});

// The table of methods: sorted by its headings, filtered by text.

/** Compares two cells by number or text; empty ones come last in either direction. */
function compared(left, right, numeric, sign) {
  if (left === "" || right === "") return (left === "") - (right === "");
  return sign * (numeric ? Number(left) - Number(right) : left.localeCompare(right));
}

/** Orders the rows by a column, and says so to assistive technology. */
function sortBy(table, heading) {
  const rows = [...table.tBodies[0].rows];
  const numeric = heading.classList.contains("number");
  const before = heading.getAttribute("aria-sort");
  const direction = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
  const key = (row) => row.cells[heading.cellIndex].dataset.value ?? row.cells[heading.cellIndex].textContent;
  rows.sort((a, b) => compared(key(a), key(b), numeric, direction === "ascending" ? 1 : -1));
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...rows);
}

/** Makes every heading a button. */
function makeSortable(table) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading));
    heading.append(button);
  }
}

/** Hides rows that do not have every word of the filter, and recipes unless they are wanted; tells how many are left. */
function applyFilter(table) {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const recipes = document.getElementById("recipes")?.checked ?? true;
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const text = `${row.cells[0].textContent} ${row.dataset.text}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (row.classList.contains("recipe") && !recipes);
  }
  const left = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").textContent = `${left} of ${rows.length} rows`;
}

function startTable() {
  const table = document.getElementById("method-table");
  makeSortable(table);
  applyFilter(table);
  document.getElementById("filter").addEventListener("input", () => applyFilter(table));
  document.getElementById("recipes")?.addEventListener("change", () => applyFilter(table));
  document.getElementById("more").addEventListener("change", ({ target }) => table.classList.toggle("with-more", target.checked));
}

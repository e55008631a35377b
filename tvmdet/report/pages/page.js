// Headings of tables become buttons that sort. Without this script the tables are as useful, unsorted.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  if (body.rows.length < 2) continue;
  headings.forEach((heading, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => ({ row, value: sortValue(row.cells[index]) }));
      rows.sort((a, b) => compare(a.value, b.value, down ? -1 : 1));
      body.append(...rows.map((one) => one.row));
    });
  });
}

function sortValue(cell) {
  const number = cell.dataset.v;
  if (number !== undefined) return number === "inf" ? Infinity : Number(number);
  const text = cell.textContent.trim();
  return text === "" ? null : text;
}

// Cells without a value stay last, whichever way the others go.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") {
    if (!Number.isFinite(a) || !Number.isFinite(b)) return (a === Infinity) - (b === Infinity);
    return sign * (a - b);
  }
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
}
// Folded parts are printed as well.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});

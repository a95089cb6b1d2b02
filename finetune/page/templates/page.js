
"use strict";
// Images that are on the page more than once hold their pixels once.
for (const copy of document.querySelectorAll("img[data-copy]")) {
  const first = document.querySelector(`img[data-image="${copy.dataset.copy}"]`);
  if (first) copy.src = first.src;
}
// A click on a column's heading sorts the table by it: cells are compared by data-value.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const spoken = table.parentElement.querySelector("[aria-live]");
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.classList.contains("text") ? "ascending" : "descending";
      const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
      heads.forEach((each) => each.hasAttribute("aria-sort") && each.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].map((row, place) => ({ row, place, key: value(row) }));
      const sign = order === "ascending" ? 1 : -1;
      const compare = head.classList.contains("text")
        ? (a, b) => a.localeCompare(b, undefined, { numeric: true })
        : (a, b) => (a === "") - (b === "") || Number(a) - Number(b);
      rows.sort((a, b) => sign * compare(a.key, b.key) || a.place - b.place);
      table.tBodies[0].append(...rows.map((each) => each.row));
      if (spoken) spoken.textContent = `Sorted by ${button.textContent.trim()}, ${order}.`;
    });
  });
}

// Sorts a table by the column whose head is pressed; what is unknown stays last. Without scripts the tables stay as they are.
"use strict";
const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
const order = (one, other, sign) => {
  if (one === "" || other === "") return (one === "") - (other === "");
  const gap = one - other;
  return sign * (Number.isNaN(gap) ? one.localeCompare(other, "en", { numeric: true }) : gap);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => order(key(one, column), key(other, column), up ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}

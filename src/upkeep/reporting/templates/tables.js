// A click on a column's title sorts a table by it; a long table can be filtered. Without JavaScript it is just a table.
const LONG = 15;

function read(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = /^\d{4}-\d\d/.test(text) ? NaN : parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text : number;
}

function compare(one, other, way) {
  if (typeof one === typeof other) return way * (typeof one === "number" ? other - one : one.localeCompare(other));
  return typeof one === "number" ? -1 : 1; // what is not known comes last
}

for (const table of document.querySelectorAll("table")) {
  const rows = [...table.rows].filter((row) => row.querySelector("td"));
  if (rows.length < 2) continue;
  const titles = [...table.querySelectorAll("th")];
  for (const [column, title] of titles.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const back = title.getAttribute("aria-sort") === "descending";
      const way = back ? -1 : 1;
      rows.sort((one, other) => compare(read(one, column), read(other, column), way));
      rows[0].parentElement.append(...rows);
      titles.forEach((each) => each.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", back ? "ascending" : "descending");
    });
  }
  if (rows.length <= LONG) continue;
  const filter = Object.assign(document.createElement("input"), { type: "search" });
  filter.placeholder = `Filter ${rows.length} rows; a title sorts`;
  filter.setAttribute("aria-label", "Filter the table");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.before(filter);
}

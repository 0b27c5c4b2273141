(() => {
  const table = document.getElementById("candidates");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const given = row.cells[column] ? row.cells[column].dataset.sort : undefined;
    return given === undefined || given === "" ? null : given;
  };
  heads.forEach((head, column) => {
    if (!head.dataset.kind) return;
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.append(head.firstChild);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.kind === "higher" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      [...body.rows].sort((one, two) => {
        const a = value(one, column), b = value(two, column);
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (head.dataset.kind === "text" ? a.localeCompare(b) : a - b);
      }).forEach((row) => body.append(row));
    });
  });
  document.documentElement.classList.add("sortable");
})();

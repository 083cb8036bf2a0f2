for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head, place) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    const isText = head.dataset.sort === "text";
    const rows = [...table.tBodies[0].rows].map((row) => {
      const cell = row.cells[place];
      const value = isText ? cell.textContent : cell.dataset.value;
      return { row, value: isText ? value : parseFloat(value), isKnown: value !== "" };
    });
    rows.sort((one, two) => {
      if (!one.isKnown || !two.isKnown) return two.isKnown - one.isKnown; // what is not known stays last
      const order = isText ? one.value.localeCompare(two.value) : one.value - two.value;
      return up ? order : -order;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...rows.map((one) => one.row));
  };
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(head, place));
  });
}


// A number of the confusion matrix opens the images in it.
{
  const known = JSON.parse(document.getElementById("cells").textContent);
  const dialog = document.getElementById("cell");
  const list = document.getElementById("cell-images");
  const add = (parent, tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    parent.append(element);
    return element;
  };
  const open = (button) => {
    const [truth, answer] = button.dataset.cell.split(",").map(Number);
    const images = known.cells[button.dataset.cell] ?? [];
    const count = Number(button.dataset.value);
    const title = document.getElementById("cell-title");
    title.replaceChildren(`${count} ${count === 1 ? "image" : "images"} of `);
    add(title, "bdi", known.names[truth]);
    title.append(truth === answer ? ", recognised" : ", taken for ");
    if (truth !== answer) add(title, "bdi", known.names[answer]);
    document.getElementById("cell-note").textContent =
      "The number is the probability of the answer." +
      (images.length < count ? ` The ${images.length} surest are listed.` : "");
    list.replaceChildren();
    for (const [number, name, probability] of images) {
      const item = add(list, "li");
      const source = number === null ? null : document.querySelector(`img[data-image="${number}"]`);
      if (source) {
        const image = add(item, "img");
        image.src = source.src;
        image.alt = name;
        if ("small" in source.dataset) image.dataset.small = "";
      }
      add(item, "bdi", name);
      add(item, "span", `${(100 * probability).toFixed(1)} %`, "muted");
    }
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  for (const button of document.querySelectorAll("button[data-cell]")) {
    button.addEventListener("click", () => open(button));
  }
  document.getElementById("cell-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  // One number of the matrix is in the order of Tab; arrow keys lead to the others.
  const matrix = document.getElementById("matrix");
  if (matrix) {
    const rows = [...matrix.tBodies[0].rows].map((row) => [...row.cells].slice(1));
    const buttons = [...matrix.querySelectorAll("button")];
    buttons.forEach((button, place) => (button.tabIndex = place ? -1 : 0));
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    matrix.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell) return;
      event.preventDefault();
      let row = rows.findIndex((each) => each.includes(cell));
      let column = rows[row].indexOf(cell);
      for (;;) {
        row += step[0];
        column += step[1];
        const next = rows[row]?.[column];
        if (!next) return;
        const button = next.querySelector("button");
        if (button) {
          buttons.forEach((each) => (each.tabIndex = -1));
          button.tabIndex = 0;
          button.focus();
          return;
        }
      }
    });
  }
}
// Everything is printed, folded or not.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));

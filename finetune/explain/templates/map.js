
// The map: images on hover and by keyboard, in both planes at once.
const points = JSON.parse(document.getElementById("points").textContent);
const planes = [...document.querySelectorAll("svg.plane")];
const marks = planes.map((plane) => [...plane.querySelectorAll("g.pt")]);
const card = document.getElementById("card");
let method = "tsne";
let current = -1;
const position = (plane, index) => points.planes[plane][method][index];
function show(plane, index) {
  if (current >= 0) marks.forEach((each) => each[current].classList.remove("at"));
  current = index;
  card.hidden = index < 0;
  if (index < 0) return;
  marks.forEach((each) => each[index].classList.add("at"));
  const [name, label, predicted, probability] = points.images[index];
  const image = card.querySelector("img");
  const small = points.thumbnails[index];
  image.hidden = !small;
  if (small) image.src = small;
  const said = predicted === label ? "predicted so" : `predicted: ${points.classes[predicted]}`;
  card.querySelector("p").textContent = `${points.classes[label]}\n${said}, ${probability}\n${name}`;
  const box = marks[plane][index].getBoundingClientRect();
  const x = box.left + box.width / 2, y = box.top + box.height / 2;
  const { offsetWidth: width, offsetHeight: height } = card;
  card.style.left = `${Math.max(4, x + 18 + width > innerWidth ? x - 18 - width : x + 18)}px`;
  card.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
}
function closest(plane, x, y, reach, allowed) {
  let best = -1, least = reach;
  marks[plane].forEach((_, index) => {
    const [px, py] = position(plane, index);
    const distance = Math.hypot(px - x, py - y);
    if (distance < least && allowed(px - x, py - y, index)) { best = index; least = distance; }
  });
  return best;
}
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
planes.forEach((svg, plane) => {
  const track = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    show(plane, closest(plane, at.x, at.y, 14, () => true));
  };
  svg.addEventListener("pointermove", track);
  svg.addEventListener("pointerdown", track);
  // A finger leaves as soon as it is lifted.
  svg.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch" && document.activeElement !== svg) show(plane, -1);
  });
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(plane, Math.max(current, 0)); });
  svg.addEventListener("blur", () => show(plane, -1));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return show(plane, -1);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "n") {
      const wrong = points.images.map((each, index) => (each[1] === each[2] ? -1 : index)).filter((each) => each >= 0);
      if (wrong.length) show(plane, wrong.find((each) => each > current) ?? wrong[0]);
      return;
    }
    const arrow = arrows[event.key];
    if (!arrow) return;
    event.preventDefault();
    if (current < 0) return show(plane, 0);
    const [x, y] = position(plane, current);
    const [ax, ay] = arrow;
    // Within 45 degrees of the arrow.
    const ahead = (dx, dy) => dx * ax + dy * ay > 0.01 && dx * ax + dy * ay >= Math.abs(dx * ay + dy * ax);
    const next = closest(plane, x, y, Infinity, ahead);
    if (next >= 0) show(plane, next);
  });
});
for (const radio of document.querySelectorAll("input[name=method]")) {
  radio.addEventListener("change", () => {
    method = radio.value;
    show(0, -1);
    marks.forEach((each, plane) => each.forEach((mark, index) => {
      mark.setAttribute("transform", `translate(${position(plane, index).join(" ")})`);
    }));
  });
}
const others = document.getElementById("others");
function pick(chosen) {
  for (const svg of planes) svg.classList.toggle("picking", chosen !== null);
  marks.forEach((each) => each.forEach((mark, index) => mark.classList.toggle("picked", points.images[index][1] === chosen)));
}
const buttons = [...document.querySelectorAll(".legend button")];
for (const button of buttons) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    buttons.forEach((each) => each.setAttribute("aria-pressed", String(on && each === button)));
    if (others) others.value = "";
    pick(on ? Number(button.dataset.class) : null);
  });
}
if (others) others.addEventListener("change", () => {
  buttons.forEach((each) => each.setAttribute("aria-pressed", "false"));
  pick(others.value === "" ? null : Number(others.value));
});

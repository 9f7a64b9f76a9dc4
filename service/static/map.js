// The map: drawn from its Vega-Lite spec with a brush; what is brushed is listed below.
import { draw, specOf } from "./charts.js";

const place = document.querySelector("[data-map]");
const view = document.getElementById("view");
const rectangle = document.getElementById("rectangle");
const ENDS = ["x_from", "x_to", "y_from", "y_to"];
let drawing = 0; // what was asked for last wins
let listing = 0;
let shown; // the spec that is drawn

const asked = () => Object.fromEntries(["method", "colour"].map((name) => [name, view.elements[name].value]));
const address = (base, values) => {
  const found = new URL(base, location.href);
  for (const [name, value] of Object.entries(values)) if (value !== "") found.searchParams.set(name, value);
  return found;
};

function brushed(spec) {
  const [points, ...others] = spec.layer;
  return { ...spec, layer: [{ ...points, params: [{ name: "brush", select: { type: "interval", encodings: ["x", "y"] } }] }, ...others] };
}

async function render(spec) {
  const { view: chart } = await draw(place, brushed(spec));
  // the place has the words; the brush inside would be a picture without any
  place.querySelector("svg").setAttribute("aria-hidden", "true");
  let wait;
  chart.addSignalListener("brush", (_name, { x, y } = {}) => {
    if (!x || !y) return;
    clearTimeout(wait);
    wait = setTimeout(() => {
      const ends = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
      ENDS.forEach((name, i) => { rectangle.elements[name].value = Number(ends[i].toPrecision(4)); });
      listRectangle();
    }, 250);
  });
}

async function show() {
  const mine = ++drawing;
  try {
    const spec = await specOf(address(place.dataset.map, asked()));
    if (mine !== drawing) return;
    shown = spec;
    const table = place.parentElement.querySelector(".data"); // of what was drawn before
    table.open = false;
    delete table.dataset.done;
    place.parentElement.querySelector(".caption").textContent = spec.description;
    await render(spec);
  } catch (error) {
    if (mine === drawing) place.textContent = error.message;
  }
  for (const link of document.querySelectorAll("[data-format]")) link.href = address(place.dataset.map, { ...asked(), format: link.dataset.format });
}

// the same page with these images, of which only the list is taken: one template lists them
async function list(where) {
  const mine = ++listing;
  const selected = document.getElementById("selected");
  selected.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(where);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== listing) return;
    const found = page.getElementById("selected");
    if (!found) throw new Error(page.querySelector(".error")?.textContent ?? answer.statusText);
    selected.replaceChildren(...found.childNodes);
    history.replaceState(null, "", where);
  } catch (error) {
    if (mine === listing) selected.textContent = error.message;
  }
  selected.removeAttribute("aria-busy");
}

const listRectangle = () => list(address(place.dataset.here, { ...asked(), ...Object.fromEntries(ENDS.map((name) => [name, rectangle.elements[name].value])) }));

view.addEventListener("change", ({ target }) => {
  for (const [name, value] of Object.entries(asked())) rectangle.elements[name].value = value;
  if (target.name === "method") ENDS.forEach((name) => { rectangle.elements[name].value = ""; }); // of the other axes
  show();
});
view.addEventListener("submit", (event) => event.preventDefault());
view.querySelector("button").hidden = true; // what is chosen shows at once
rectangle.addEventListener("submit", (event) => {
  event.preventDefault();
  listRectangle();
});
document.getElementById("clusters")?.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-cluster]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  await list(address(place.dataset.here, { ...asked(), cluster: link.dataset.cluster }));
  const selected = document.getElementById("selected");
  selected.scrollIntoView({ block: "start" });
  selected.querySelector("a")?.focus({ preventScroll: true });
});
// drawn anew in other colours by charts.js, which knows of no brush
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown && render(shown));
show();

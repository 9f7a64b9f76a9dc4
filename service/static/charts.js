// Draws the charts of a page as they come into view, each from its Vega-Lite spec.
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // place → spec

// the palette of the specs, made lighter where the ground is dark
const LIGHTER = { "#0072B2": "#56B4E9", "#D55E00": "#F0873F", "#7f7f7f": "#A9B3BE" };

const config = () => ({
  background: "transparent",
  font: "system-ui, sans-serif",
  legend: { labelLimit: 400 },
  view: { stroke: null },
  ...(dark.matches && {
    title: { color: "#ddd" },
    axis: { labelColor: "#ccc", titleColor: "#ccc", gridColor: "#3a424b", domainColor: "#888", tickColor: "#888" },
    legend: { labelColor: "#ccc", titleColor: "#ccc", labelLimit: 400 },
    header: { labelColor: "#ccc", titleColor: "#ccc" },
    text: { color: "#ddd" },
  }),
});

function inColours(spec) {
  if (!dark.matches) return spec;
  const text = JSON.stringify(spec);
  return JSON.parse(text.replace(/#(0072B2|D55E00|7f7f7f)/g, (colour) => LIGHTER[colour]));
}

async function embed(place, spec) {
  // only pages whose charts are looked at fetch it; a kept page has it inside
  if (!window.vegaEmbed) await import(document.body.dataset.vega);
  // ast: no code is made from text, so that the page may forbid that
  return window.vegaEmbed(place, spec, { actions: false, config: config(), renderer: "svg", ast: true, defaultStyle: false, tooltip: { theme: dark.matches ? "dark" : "light", disableDefaultStyle: true } });
}

export async function specOf(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail ?? answer.statusText);
  return found;
}

// A title of the axis below is broken where it is longer than the chart is wide: else it is cut.
function broken(spec, width) {
  const most = Math.floor((width - 90) / 6);
  const lines = (title) => title.split(" ").reduce((made, word) => {
    const last = made.at(-1);
    if (last !== undefined && `${last} ${word}`.length <= most) made[made.length - 1] = `${last} ${word}`;
    else made.push(word);
    return made;
  }, []);
  return JSON.parse(JSON.stringify(spec), (name, node) => {
    if (name !== "x" || typeof node?.title !== "string" || node.title.length <= most) return node;
    // Vega takes a line that is called as objects' own are, such as constructor, for a signal
    return { ...node, title: lines(node.title).map((line) => (line in {} ? `${line} ` : line)) };
  });
}

export async function draw(place, spec, signals = {}) {
  // the page's width, not the spec's: usable on a telephone
  const width = Math.min((spec.width ?? 560) + 320, place.clientWidth - 12);
  const fitted = { ...broken(inColours(spec), width), width, autosize: { type: "fit-x", contains: "padding" }, title: undefined };
  const made = await embed(place, fitted);
  place.setAttribute("aria-label", `Chart: ${spec.description ?? ""}`);
  drawn.set(place, spec);
  return made;
}

async function show(place) {
  const inline = document.getElementById("spec");
  try {
    const spec = place.dataset.spec ? await specOf(place.dataset.spec) : JSON.parse(inline.textContent);
    const caption = place.parentElement.querySelector(".caption");
    if (caption && !caption.textContent.trim()) caption.textContent = spec.description ?? ""; // wraps, where a title inside would be cut
    await draw(place, spec);
  } catch (error) {
    place.textContent = error.message;
  }
  place.dataset.done = "";
}

// The longest list of rows inside a spec: what the chart shows, beside lines and bands.
export function rowsOf(spec) {
  const lists = [];
  const visit = (node) => {
    if (!node || typeof node !== "object") return;
    if (Array.isArray(node.values) && node.values.length && typeof node.values[0] === "object") lists.push(node.values);
    lists.push(...Object.values(node.datasets ?? {})); // as Altair names them
    for (const [name, value] of Object.entries(node)) if (name !== "values" && name !== "datasets") visit(value);
  };
  visit(spec);
  return lists.reduce((best, list) => (list.length > best.length ? list : best), []);
}

function fill(details) {
  const place = details.closest("figure").querySelector(".chart");
  const spec = drawn.get(place);
  if (!spec || details.dataset.done !== undefined) return;
  details.dataset.done = "";
  const rows = rowsOf(spec).slice(0, 200);
  if (!rows.length) return;
  const table = document.createElement("table");
  const names = Object.keys(rows[0]);
  const row = (cells, kind, parent) => {
    const line = parent.insertRow();
    for (const cell of cells) {
      const made = document.createElement(kind);
      made.textContent = typeof cell === "number" && !Number.isInteger(cell) ? cell.toPrecision(4) : (cell ?? "–");
      line.append(made);
    }
  };
  row(names, "th", table.createTHead());
  const body = table.createTBody();
  for (const one of rows) row(names.map((name) => one[name]), "td", body);
  details.querySelector(".scroll").replaceChildren(table);
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    show(target);
  }
}, { rootMargin: "300px" });

export const watch = (root) => root.querySelectorAll(".chart:not([data-own])").forEach((place) => seen.observe(place));
watch(document);
dark.addEventListener("change", () => drawn.forEach((spec, place) => draw(place, spec)));
document.querySelectorAll(".data").forEach((details) => details.addEventListener("toggle", () => fill(details)));
addEventListener("beforeprint", () => document.querySelectorAll(".chart:not([data-own]):not([data-done])").forEach(show));

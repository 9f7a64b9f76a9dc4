// Draws the charts of the page, and follows the jobs that are under way.
const dark = matchMedia("(prefers-color-scheme: dark)");
const config = () => ({
  background: "transparent",
  view: { stroke: null },
  ...(dark.matches && {
    title: { color: "#ddd" },
    axis: { labelColor: "#ccc", titleColor: "#ccc", gridColor: "#444", domainColor: "#888", tickColor: "#888" },
    legend: { labelColor: "#ccc", titleColor: "#ccc" },
    text: { color: "#ddd" },
  }),
});

async function draw(place) {
  const inline = document.getElementById("spec");
  const spec = place.dataset.spec
    ? await (await fetch(place.dataset.spec)).json()
    : JSON.parse(inline.textContent);
  const caption = place.parentElement.querySelector(".caption");
  if (caption) caption.textContent = spec.description; // wraps, where a title inside would be cut
  // the page's width, not the spec's: usable on a telephone
  const width = Math.min(spec.width + 160, place.clientWidth - 12);
  const fitted = { ...spec, width, autosize: { type: "fit-x", contains: "padding" }, title: undefined };
  await window.vegaEmbed(place, fitted, { actions: false, renderer: "svg", config: config() });
}

const drawAll = () => document.querySelectorAll(".chart").forEach((place) =>
  draw(place).catch((error) => { place.textContent = `This chart could not be drawn: ${error.message}`; }));
drawAll();
dark.addEventListener("change", drawAll);

async function follow(line) {
  const [bar, text] = [line.querySelector("progress"), line.querySelector("span")];
  for (;;) {
    const job = await (await fetch(`/jobs/${line.dataset.job}`)).json();
    bar.value = job.progress;
    text.textContent = job.error ?? job.message;
    if (!["queued", "running", "cancelling"].includes(job.state)) return location.reload();
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
document.querySelectorAll("[data-job]").forEach(follow);

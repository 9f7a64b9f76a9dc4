// Keys of the pages of images: arrows move in the grid, and lead from one image to the next.
const grid = document.getElementById("grid");
const isTyping = (place) => place.closest("input, select, textarea, [contenteditable], [role=region]") !== null;
const plain = (event) => !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey);

const columns = (links) => {
  const top = links[0].getBoundingClientRect().top;
  const next = links.findIndex((link) => link.getBoundingClientRect().top > top + 1);
  return next < 0 ? links.length : next;
};

function moveInGrid(event) {
  const links = [...grid.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (!links.length) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(links), ArrowDown: columns(links), Home: -at, End: links.length - 1 - at };
  if (!(event.key in steps)) return;
  if (at < 0) {
    // up and down go on scrolling until the grid has the focus
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    links[event.key === "ArrowRight" ? 0 : links.length - 1].focus();
  } else {
    const to = at + steps[event.key];
    if (to < 0 || to >= links.length) return;
    links[to].focus();
  }
  event.preventDefault();
}

document.addEventListener("keydown", (event) => {
  if (!plain(event) || isTyping(event.target)) return;
  if (grid) return moveInGrid(event);
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`main a[rel=${rel}]`);
  if (!link) return;
  event.preventDefault();
  location.assign(link.href);
});

// empty fields of the form are no conditions, and would only lengthen the address
document.querySelectorAll("form[data-drops-empty]").forEach((form) =>
  form.addEventListener("formdata", (event) => [...event.formData].forEach(([name, value]) => value === "" && event.formData.delete(name))),
);

// what takes seconds is fetched into its place; without scripts the link leads to the page with it
async function fetchInto(link) {
  const place = document.getElementById(link.dataset.fetches);
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  said.textContent = "Looking for them …";
  link.parentElement.replaceWith(said);
  const answer = await fetch(link.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById(place.id);
  if (found) place.replaceWith(document.adoptNode(found));
  else said.textContent = "They could not be found; load the page again.";
}
document.querySelectorAll("a[data-fetches]").forEach((link) => {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    fetchInto(link);
  });
  if ("atOnce" in link.dataset) fetchInto(link);
});

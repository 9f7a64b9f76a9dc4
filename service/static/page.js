// Follows the jobs that are under way, submits the pickers, sorts and searches tables, sends forms.
document.documentElement.classList.add("js");

// on a narrow screen the page that is open may lie outside the row of pages
const here = document.querySelector(".top nav [aria-current]");
if (here) {
  const row = here.closest("ul");
  row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.clientWidth) / 2;
}

// what is half written in a form survives a load of the page, until it is sent
const nameOf = (form) => `draft ${location.pathname} ${form.dataset.posts ?? form.id}`;
const isWritten = (field) => field.name && field.type !== "hidden";
export const forget = (form) => sessionStorage.removeItem(nameOf(form));
for (const form of document.querySelectorAll("form.wide")) {
  const fields = [...form.elements].filter(isWritten);
  const kept = JSON.parse(sessionStorage.getItem(nameOf(form)) ?? "[]");
  for (const [name, value, checked] of kept) {
    const field = fields.find((one) => one.name === name && (one.type !== "checkbox" || one.value === value));
    if (!field || (field.options && ![...field.options].some((option) => option.value === value))) continue;
    if (field.type === "checkbox") field.checked = checked;
    else field.value = value;
    if (value && field.closest("details")) field.closest("details").open = true;
  }
  form.addEventListener("input", () => sessionStorage.setItem(nameOf(form), JSON.stringify(fields.map((field) => [field.name, field.value, field.checked]))));
}

// pickers submit themselves
document.querySelectorAll("[data-submits]").forEach((form) => form.addEventListener("change", () => form.requestSubmit()));

// jobs: one stream for all of them; it ends when none is under way, then the page is up to date
const OPEN = ["queued", "running", "cancelling"];
const section = document.getElementById("jobs");

function showJob(job) {
  const line = section.querySelector(`[data-job="${job.job}"]`);
  if (!line) return;
  line.querySelector("progress").value = job.progress;
  line.querySelector(".state").textContent = job.state;
  line.querySelector(".message").textContent = job.error ?? (job.message === job.state ? "" : job.message);
  if (line.dataset.state !== job.state && !OPEN.includes(job.state)) line.querySelector("[data-cancel]")?.remove();
  line.dataset.state = job.state;
}

function offer() {
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Show what is new";
  link.addEventListener("click", (event) => {
    event.preventDefault();
    location.reload();
  });
  const said = document.createElement("p");
  said.className = "notice";
  said.setAttribute("role", "status");
  said.append("Done. ", link);
  const form = document.activeElement.closest("form");
  form.after(said);
}

// a load of this page must not overtake the way to another one: whoever leaves would be thrown back.
// It is put off, not given up: a download begins like leaving, and the page stays
const LEAVING_MS = 10_000;
let leftAt = -LEAVING_MS;
addEventListener("beforeunload", () => (leftAt = performance.now()));

function showNews() {
  const wait = leftAt + LEAVING_MS - performance.now();
  if (wait > 0) setTimeout(showNews, wait);
  // whoever writes is not interrupted
  else if (document.activeElement?.closest("form.wide, form[data-inert]")) offer();
  else location.reload();
}

function follow() {
  const stream = new EventSource("/jobs/events");
  stream.addEventListener("jobs", (event) => JSON.parse(event.data).forEach(showJob));
  stream.addEventListener("idle", () => {
    stream.close();
    showNews();
  });
}
const isOpen = [...document.querySelectorAll("[data-job]")].some((line) => OPEN.includes(line.dataset.state));
const isPending = document.querySelector("[data-pending]") !== null;
// what never comes must not be waited for by loading the page for ever
const left = Number(sessionStorage.getItem("waits") ?? 20);
if (isPending && left > 0) {
  sessionStorage.setItem("waits", String(left - 1));
  setTimeout(follow, isOpen ? 0 : 1500);
} else if (isOpen) follow();
if (!isPending) sessionStorage.removeItem("waits");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-cancel], [data-resume]");
  if (!button) return;
  button.disabled = true;
  const { cancel, resume } = button.dataset;
  const answer = await (cancel ? fetch(`/jobs/${cancel}`, { method: "DELETE" }) : fetch(`/jobs/${resume}/resume`, { method: "POST" }));
  const said = await answer.json();
  if (!answer.ok) button.parentElement.querySelector(".message").textContent = said.detail;
  else if (cancel) showJob(said);
  else location.reload();
});

// tables: sorted by the button in a column's head, searched by the field above
const key = (cell) => {
  const text = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
  return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text.toLowerCase();
};
const compared = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
      // unknown ones stay last both ways
      const unknown = ([value]) => value === "" || value === "–" || value === "not known";
      rows.sort((a, b) => unknown(a) - unknown(b) || (down ? -1 : 1) * compared(a[0], b[0]));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
for (const field of document.querySelectorAll("[data-searches]")) {
  const table = document.getElementById(field.dataset.searches);
  const count = document.getElementById(`${field.dataset.searches}-count`);
  const rows = [...table.tBodies[0].rows].map((row) => [row.textContent.toLowerCase(), row]);
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let n = 0;
    for (const [text, row] of rows) {
      row.hidden = !text.includes(wanted);
      n += !row.hidden;
    }
    if (count) count.textContent = `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  });
}

// what a search field does is done as one types: Enter must not load the page again
document.querySelectorAll("form[data-inert]").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));

// a picture that is not there leaves the path
const bare = (picture) => picture.closest(".card, figure")?.classList.add("no-picture");
document.addEventListener("error", (event) => event.target.matches?.("img[data-fallback]") && bare(event.target), true);
document.querySelectorAll("img[data-fallback]").forEach((picture) => picture.complete && !picture.naturalWidth && bare(picture));

// forms that are sent as JSON: the answer's place, or its refusal in words
export function valuesOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "checkbox" && !field.checked && !field.dataset.always)) continue;
    const [outer, inner] = field.name.split(".");
    if (field.value === "" && field.type !== "checkbox") continue;
    const kind = field.dataset.kind;
    const value = field.type === "checkbox" ? field.checked : kind === "number" ? Number(field.value) : kind === "json" ? JSON.parse(field.value) : kind === "list" ? field.value.split(",").map((one) => one.trim()).filter(Boolean) : field.value;
    if (field.dataset.spreads !== undefined) body[outer] = { ...body[outer], ...value };
    else if (inner) (body[outer] ??= {})[inner] = value;
    else body[outer] = value;
  }
  return body;
}

export async function send(address, body) {
  const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail ?? answer.statusText);
  return found;
}

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-posts]");
  if (!form) return;
  event.preventDefault();
  const said = form.querySelector("[data-said]");
  const button = form.querySelector("button:not([type=button])");
  said.className = "quiet";
  said.textContent = "Sending …";
  button.disabled = true;
  try {
    await send(form.dataset.posts, valuesOf(form));
    forget(form);
    location.assign(form.dataset.then ?? location.href);
    if (form.dataset.then === undefined) location.reload();
  } catch (error) {
    said.className = "error";
    said.textContent = error instanceof SyntaxError ? `This is no JSON: ${error.message}` : error.message;
    button.disabled = false;
  }
});

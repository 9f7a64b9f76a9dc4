// Sends the form of a report as JSON.
import { send } from "./page.js";

const form = document.getElementById("report-form");

function authorsOf(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [name, id, share] = line.split(";").map((cell) => cell.trim());
    if (!name || !id || !share || Number.isNaN(Number(share))) throw new Error(`Wanted name; number; share in each line of the authors, got: ${line}`);
    return { name, id, share: Number(share) };
  });
}

function bodyOf(fields) {
  const body = { models: [fields.get("model"), ...fields.getAll("others")], title_page: {}, text: {} };
  for (const end of ["reference", "target"]) if (fields.get(end)) body[end] = fields.get(end);
  for (const name of ["title", "course"]) if (fields.get(name)) body.title_page[name] = fields.get(name);
  const authors = authorsOf(fields.get("authors") ?? "");
  if (authors.length) body.title_page.authors = authors;
  for (const [name, value] of fields) if (name.startsWith("text.") && value.trim()) body.text[name.slice(5)] = value;
  return body;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = form.querySelector("[data-said]");
  const button = form.querySelector("button");
  button.disabled = true;
  said.className = "quiet";
  said.textContent = "Sending …";
  try {
    await send("/reports", bodyOf(new FormData(form)));
    location.reload();
  } catch (error) {
    said.className = "error";
    said.textContent = error.message;
    button.disabled = false;
  }
});

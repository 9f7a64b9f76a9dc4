// Buttons of the hypotheses: suggest, register, test.
import { send } from "./page.js";

async function act(button, address, body) {
  const said = button.parentElement.querySelector("[data-said]");
  button.disabled = true;
  said.textContent = "Sending …";
  try {
    await send(address, body);
    location.reload();
  } catch (error) {
    said.textContent = error.message;
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const { test, register, suggest } = event.target.dataset ?? {};
  if (test) act(event.target, `/hypotheses/${test}/test`, {});
  if (register) act(event.target, "/hypotheses", JSON.parse(register));
  if (suggest) act(event.target, "/hypotheses/suggest", JSON.parse(suggest));
});

// Buttons of the hypotheses: suggest, register, test.
import { send } from "./page.js";

async function act(button, ...steps) {
  const said = button.parentElement.querySelector("[data-said]");
  button.disabled = true;
  said.textContent = "Sending …";
  try {
    for (const [address, body] of steps) await send(address, body);
    location.reload();
  } catch (error) {
    said.textContent = error.message;
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const { test, register, suggest } = event.target.dataset ?? {};
  if (test) act(event.target, [`/hypotheses/${test}/test`, {}]);
  if (register) {
    const body = JSON.parse(register);
    // the other suggestions stay: what is suggested depends on what is registered
    const { baseline: model, reference, target } = body;
    act(event.target, ["/hypotheses", body], ["/hypotheses/suggest", { model, reference, target }]);
  }
  if (suggest) act(event.target, ["/hypotheses/suggest", JSON.parse(suggest)]);
});

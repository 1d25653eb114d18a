// Questions before something is changed: the browser's own modal dialog, which keeps the focus
// within, closes on Escape and gives the focus back.

import { element, make } from "./dom.js";
import { word } from "./words.js";

// Resolves to null when the reader goes back, else to the values of `fields` by their names.
// A field is {name, label, hint, type, maxLength}.
export function askFirst(text, { yes, danger = false, fields = [] }) {
  const dialog = element("question");
  const form = element("question-form");
  element("question-text").textContent = text;
  element("question-fields").replaceChildren(...fields.map(fieldOf));
  element("question-yes").textContent = yes;
  element("question-yes").className = danger ? "danger" : "primary";
  element("question-no").textContent = word("keep");
  dialog.returnValue = "";
  dialog.showModal();
  (form.querySelector("input") ?? element(danger ? "question-no" : "question-yes")).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null);
    }, { once: true });
  });
}

function fieldOf({ name, label, type = "text", maxLength = 200 }) {
  const shown = make("label");
  const input = make("input");
  Object.assign(input, { name, type, maxLength, spellcheck: false, autocomplete: "off" });
  if (type === "number") input.min = "1";
  shown.append(make("span", label), input);
  return shown;
}

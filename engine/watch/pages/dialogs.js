// Questions before something is changed: the browser's own modal dialog, which keeps the focus
// within, closes on Escape and gives the focus back.

import { element, make } from "./dom.js";
import { word } from "./words.js";

// Ends the question before, should it have been left without its event having come yet.
let settle = () => {};

// Resolves to null when the reader goes back, else to the values of `fields` by their names.
// A field is {name, label, hint, type, maxLength}.
export function askFirst(text, { yes, danger = false, fields = [] }) {
  settle(null);
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
    const closed = () => {
      // Open again, it is another question's turn: this was the event of the one before.
      if (!dialog.open) settle(dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null);
    };
    settle = (answer) => {
      dialog.removeEventListener("close", closed);
      settle = () => {};
      resolve(answer);
    };
    dialog.addEventListener("close", closed);
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

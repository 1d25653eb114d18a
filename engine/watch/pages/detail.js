// The panel at the side that shows one thing closely: a mail or a destination. It does not block
// the page: what is behind it goes on and can be used.

import { element } from "./dom.js";

let mail = null; // The message id of the mail that is shown, if one is.
let opener = null; // Where the focus goes back to.
let trail = []; // What was shown before: each a function that shows it again.
let version = 0;

// Open the panel with `show`, a function that asks for {title, nodes, mail}. `isDeeper` keeps a
// way back.
export function openDetail(show, { isDeeper = false } = {}) {
  if (element("detail").hidden) opener = document.activeElement;
  trail = isDeeper ? [...trail, show] : [show];
  void render(true);
}

// Ask and draw anew what is open, in the page's language.
export function refreshDetail() { if (!element("detail").hidden) void render(false); }

// The same when something has happened to the mail that is shown.
export function detailHears(events) {
  if (mail !== null && events.some((event) => event.message_id === mail)) refreshDetail();
}

export function closeDetail() {
  version += 1;
  trail = [];
  mail = null;
  if (element("detail").hidden) return;
  element("detail").hidden = true;
  element("detail-body").replaceChildren();
  element("detail-title").textContent = "";
  if (opener?.isConnected) opener.focus();
  opener = null;
}

async function render(isNew) {
  const mine = version += 1;
  element("detail").hidden = false;
  element("detail-back").hidden = trail.length < 2;
  const shown = await trail.at(-1)();
  if (mine !== version) return; // Closed, or something else was opened meanwhile.
  const { title, nodes } = shown;
  mail = shown.mail ?? null;
  element("detail-title").textContent = title;
  element("detail-body").replaceChildren(...nodes);
  if (!isNew) return;
  element("detail").scrollTop = 0;
  element("detail-title").focus();
}

export function wireDetail() {
  element("detail-close").addEventListener("click", closeDetail);
  element("detail-back").addEventListener("click", () => { trail.pop(); void render(true); });
  document.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Escape" && !element("question").open) closeDetail();
  });
}

// What happens, as it happens: the newest events first.

import { element, make, makeButton, makeTime } from "./dom.js";
import { word, wordOf } from "./words.js";

const EVENTS_SHOWN = 50; // Enough to see the kind of thing that happens; `eilpost events` has the rest.

let events = null; // null: not known yet.
let drawn = null; // What the list shows now: it is left alone, for screen readers, until it changes.

export function takeEvents(list) {
  events = [...list.slice(-EVENTS_SHOWN).reverse(), ...(events ?? [])].slice(0, EVENTS_SHOWN);
}

export function forgetEvents() {
  events = drawn = null;
  element("events").replaceChildren();
  element("events-note").textContent = "";
}

export function speakEvents(open) { drawn = null; drawEvents(open); }

// `open(messageId)` shows one mail closely.
export function drawEvents(open) {
  if (drawn === events || events === null) return;
  drawn = events;
  element("events").replaceChildren(...events.map((event) => {
    const line = eventLine(event);
    line.children[1].after(" ", makeButton(event.address, () => open(event.message_id), "link"));
    return line;
  }));
  element("events-note").textContent = events.length ? "" : word("no_events");
}

// One thing that happened to a mail: when, what, and what the server said.
export function eventLine(event) {
  const line = make("li", undefined, `is-${event.status}`);
  const facts = [event.attempt ? word("attempt")(event.attempt) : "",
    event.reason ? wordOf("reasons", event.reason) : "", event.mx_host ?? "",
    event.tls ? word("encrypted") : ""].filter(Boolean);
  line.append(makeTime(event.at), " ", make("span", wordOf("status", event.status)));
  if (facts.length) line.append(make("small", ` · ${facts.join(" · ")}`));
  if (event.reply) line.append(make("span", event.reply, "said"));
  return line;
}

// The live page: what is waiting, why, and what happens. All text from mails, replies and
// addresses enters the page as text nodes; nothing is ever parsed as HTML.

import { Stream, ask, redeemOperatorToken, signIn, signOut, signedIn, Refused } from "./stream.js";
import { count, currentLanguage, fillWords, moment, switchLanguage, word, wordOf } from "./words.js";

const element = (id) => document.getElementById(id);
const EVENTS_SHOWN = 50; // Enough to see the kind of thing that happens; the rest is for `eilpost events`.
const ROWS_SHOWN = 200; // Ten thousand rows would cost the browser more than they tell the reader.
const RATE_WINDOW_MS = 5000;

let stream = null;
let totals = {};
let deliveredHistory = [];
const destinations = new Map();
let events = [];
let eventsDrawn = null; // What the list shows now: it is left alone, for screen readers, until it changes.
let found = null; // The last search's messages; null before the first.
let story = null; // The message whose story is open.
let why = null; // What holds it back, in the language of the page.
let drawPlanned = false;

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function connection(state) {
  element("connection").dataset.state = state;
  element("connection").textContent = word(state === "signed-out" ? "signed_out" : state);
}

const show = {
  connected() { connection("live"); element("gap").hidden = true; },
  lost() { connection("lost"); },
  refused() { leave(); element("sign-in-error").textContent = word("wrong_credentials"); },
  totals(value) { totals = { ...totals, ...value }; plan(); },
  destinations(value, snapshot) {
    if (snapshot) destinations.clear();
    for (const row of value) destinations.set(row.destination, row);
    plan();
  },
  events(list) { events = [...list.slice(-EVENTS_SHOWN).reverse(), ...events].slice(0, EVENTS_SHOWN); plan(); },
  gap() { element("gap").hidden = false; element("gap").textContent = word("gap"); },
};

// Frames come ten times a second from several sources; the page is drawn once per screen refresh.
function plan() {
  if (drawPlanned) return;
  drawPlanned = true;
  requestAnimationFrame(() => { drawPlanned = false; drawTotals(); drawWaiting(); drawEvents(); });
}

function ratePerSecond() {
  const now = performance.now();
  deliveredHistory.push([now, totals.delivered ?? 0]);
  deliveredHistory = deliveredHistory.filter(([at]) => now - at <= RATE_WINDOW_MS);
  const [first, last] = [deliveredHistory[0], deliveredHistory.at(-1)];
  return last[0] > first[0] ? Math.max(0, (last[1] - first[1]) / ((last[0] - first[0]) / 1000)) : 0;
}

function drawTotals() {
  const sum = (...names) => names.reduce((total, name) => total + (totals[name] ?? 0), 0);
  const rate = ratePerSecond();
  const tiles = [
    ["pending", sum("queued", "deferred"), "wait"], ["paused", sum("paused"), "wait"],
    ["delivered", sum("delivered"), "good"], ["rate", rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate), "good"],
    ["bounced", sum("soft_bounced", "hard_bounced"), "bad"], ["blocked", sum("blocked", "cancelled"), "bad"],
  ];
  const list = element("totals");
  if (list.children.length !== tiles.length) {
    list.replaceChildren(...tiles.map(([name, , tone]) => {
      const tile = make("div", undefined, tone);
      tile.dataset.total = name;
      tile.append(make("dt"), make("dd"));
      return tile;
    }));
  }
  tiles.forEach(([name, value], place) => {
    list.children[place].firstChild.textContent = word(name);
    list.children[place].lastChild.textContent = count(value);
  });
}

const waitingIn = (row) => row.queued + row.deferred + row.paused;

function drawWaiting() {
  const wanted = element("waiting-filter").value.trim().toLowerCase();
  const rows = [...destinations.values()]
    .filter((row) => waitingIn(row) > 0 && row.destination.includes(wanted))
    .sort((a, b) => waitingIn(b) - waitingIn(a) || a.destination.localeCompare(b.destination));
  const body = element("waiting");
  const known = new Map([...body.children].map((line) => [line.dataset.destination, line]));
  const lines = rows.slice(0, ROWS_SHOWN).map((row) => fillLine(known.get(row.destination) ?? newLine(row), row));
  body.replaceChildren(...lines);
  element("waiting-more").textContent = rows.length === 0 ? word("nobody_waits")
    : rows.length > ROWS_SHOWN ? word("more")(count(rows.length - ROWS_SHOWN)) : "";
}

function newLine(row) {
  const line = make("tr");
  line.dataset.destination = row.destination;
  const name = make("th", row.destination);
  name.scope = "row";
  line.append(name, make("td", "", "number"), make("td"), make("td"), make("td", "", "reply"), make("td"));
  return line;
}

function fillLine(line, row) {
  const [, waiting, state, since, reply, next] = line.children;
  const cause = row.reason ? ` (${wordOf("reasons", row.reason)})` : "";
  const set = (cell, text) => { if (cell.textContent !== text) cell.textContent = text; };
  set(waiting, count(waitingIn(row)));
  set(state, wordOf("states", row.state) + cause);
  state.className = `state-${row.state}`;
  set(since, moment(row.since));
  set(reply, row.last_reply ?? "");
  set(next, moment(row.next_attempt_at));
  return line;
}

function eventLine(event) {
  const line = make("li");
  const time = make("time", moment(event.at));
  time.dateTime = event.at;
  const facts = [event.address, event.attempt ? word("attempt")(event.attempt) : "",
    event.reason ? wordOf("reasons", event.reason) : "", event.reply ?? ""];
  line.append(time, " ", make("span", wordOf("status", event.status), `is-${event.status}`),
    ` ${facts.filter(Boolean).join(" · ")}`);
  return line;
}

function drawEvents() {
  if (eventsDrawn === events) return;
  eventsDrawn = events;
  element("events").replaceChildren(...events.map(eventLine));
}

async function search(query) {
  story = why = null;
  found = /^\d+$/.test(query)
    ? [await ask(`/v1/messages/${query}`).catch((error) => { if (error instanceof Refused) throw error; })].filter(Boolean)
    : (await ask(`/v1/messages?limit=20&address=${encodeURIComponent(query)}`)).messages;
  if (found.length === 1) await tell(found[0].message_id);
  drawFound();
  drawStory();
}

async function tell(messageId) {
  [story, why] = await Promise.all(["", "/explain"].map((part) => ask(`/v1/messages/${messageId}${part}`)));
  drawStory();
}

function drawFound() {
  element("found").replaceChildren(...(found ?? []).map((message) => {
    const item = make("li");
    const button = make("button", `${moment(message.accepted_at)} · ${message.address} · ${message.subject} · ${wordOf("status", message.status)}`);
    button.type = "button";
    button.addEventListener("click", () => tell(message.message_id));
    item.append(button);
    return item;
  }));
  element("search-note").textContent = found?.length === 0 ? word("nothing_found") : "";
}

function whyFacts() {
  const held = why.held_by;
  return [
    [word("since"), moment(held?.since)], [word("last_reply"), held?.reply], [word("limit"), held?.limit],
    [word("ahead"), why.ahead ? count(why.ahead) : ""], [word("expires"), moment(why.expires_at)],
  ].filter(([, value]) => value);
}

function drawStory() {
  element("story").hidden = story === null;
  if (story === null) return;
  element("story-title").textContent = `${story.subject || story.message_id} ${word("to")} ${story.address}`;
  const next = moment(why.next_attempt_at ?? story.next_attempt_at);
  element("story-now").textContent = `${wordOf("status", story.status)}. ${word("now")({ next_attempt_at: next })}`;
  element("story-why").textContent = why.held_by?.text ?? "";
  element("story-advice").textContent = why.advice;
  element("story-facts").replaceChildren(...whyFacts().flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  element("story-events").replaceChildren(...story.history.map((event) => {
    const line = eventLine({ ...event, address: "" });
    if (event.mx_host) line.append(` · ${event.mx_host}`);
    return line;
  }));
}

function enter() {
  element("sign-in").hidden = true;
  element("board").hidden = false;
  element("sign-out").hidden = false;
  connection("connecting");
  stream = new Stream(show);
  void stream.start();
}

function leave() {
  stream?.stop();
  stream = null;
  signOut();
  totals = {}; deliveredHistory = []; events = []; destinations.clear();
  found = story = why = null;
  drawFound();
  drawStory();
  element("board").hidden = true;
  element("sign-out").hidden = true;
  element("sign-in").hidden = false;
  connection("signed-out");
}

function speak() {
  fillWords(document);
  element("language").textContent = word("other_language");
  element("language").lang = currentLanguage() === "de" ? "en" : "de";
  connection(element("connection").dataset.state);
  eventsDrawn = null;
  drawFound();
  drawStory();
  plan();
}

element("sign-in-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const form = new FormData(submitted.target);
  element("sign-in-error").textContent = "";
  signIn(form.get("key").trim(), form.get("secret").trim());
  submitted.target.reset();
  enter();
});
element("search-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  search(new FormData(submitted.target).get("query").trim()).catch((error) => {
    if (error instanceof Refused) show.refused();
    else element("search-note").textContent = word("no_engine");
  });
});
element("waiting-filter").addEventListener("input", plan);
element("language").addEventListener("click", () => {
  switchLanguage();
  speak();
  // The explanation's words are the engine's: they are asked for anew.
  if (story) tell(story.message_id).catch(() => {});
});
element("sign-out").addEventListener("click", leave);
// A rate falls to nothing when no frame comes any more, so it is drawn by the clock too.
setInterval(() => { if (stream) plan(); }, 1000);

speak();
redeemOperatorToken()
  .catch(() => { element("sign-in-error").textContent = word("wrong_credentials"); })
  .finally(() => { if (signedIn()) enter(); });

// How much is in which state right now, and how fast it moves.

import { element, make, setText } from "./dom.js";
import { count, rate, word } from "./words.js";

const RATE_WINDOW_MS = 5000;
const STATUSES = ["queued", "paused", "deferred", "delivered", "soft_bounced", "hard_bounced", "blocked", "cancelled"];

let totals = {};
let isKnown = false;
let history = []; // [when, all that was ever accepted, all that was delivered]

export function takeTotals(value) {
  totals = { ...totals, ...value };
  if (!isKnown) performance.mark("eilpost-totals");
  isKnown = true;
}

export function forgetTotals() {
  totals = {};
  isKnown = false;
  history = [];
  element("totals").replaceChildren();
}

const sum = (...names) => names.reduce((all, name) => all + (totals[name] ?? 0), 0);

function ratesPerSecond() {
  const now = performance.now();
  // A jump from nothing to a million, when the first frame comes, is no rate.
  if (isKnown) history.push([now, sum(...STATUSES), sum("delivered")]);
  history = history.filter(([at]) => now - at <= RATE_WINDOW_MS);
  const [first, last] = [history[0], history.at(-1)];
  if (!first || last[0] <= first[0]) return [0, 0];
  const seconds = (last[0] - first[0]) / 1000;
  return [1, 2].map((place) => Math.max(0, (last[place] - first[place]) / seconds));
}

export function drawTotals() {
  const [acceptedRate, deliveredRate] = ratesPerSecond();
  const tiles = [
    ["pending", count(sum("queued", "deferred")), "wait"], ["paused", count(sum("paused")), "wait"],
    ["delivered", count(sum("delivered")), "good"], ["rate", rate(deliveredRate), "good"],
    ["accepted_rate", rate(acceptedRate), ""],
    ["bounced", count(sum("soft_bounced", "hard_bounced")), "bad"],
    ["blocked", count(sum("blocked", "cancelled")), "bad"],
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
    setText(list.children[place].firstChild, word(name));
    setText(list.children[place].lastChild, isKnown ? value : "–");
  });
}

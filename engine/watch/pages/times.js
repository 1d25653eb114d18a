// How long mail took from its acceptance to the receiver's yes, by destination.

import { readableDomain } from "./domains.js";
import { element, excuse, make, repeat } from "./dom.js";
import { ask } from "./session.js";
import { count, duration, word } from "./words.js";

const AGAIN_S = 60;
const ROWS = 50;
const DAYS = 30;

export class Times {
  #refused; #rows = null; #timer = null; #trouble = "";

  constructor({ refused }) { this.#refused = refused; }

  start() { this.#timer = repeat(AGAIN_S, () => this.#load(), this.#refused); }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#rows = null;
    this.#trouble = "";
    this.speak();
  }

  speak() {
    element("times-note").textContent = this.#trouble
      || (this.#rows === null ? "" : word(this.#rows.length ? "times_hint" : "times_none"));
    element("times").replaceChildren(...(this.#rows ?? []).map((row) => {
      const line = make("tr");
      const name = make("th", readableDomain(row.key));
      name.scope = "row";
      name.title = row.key;
      line.append(name, make("td", count(row.count), "number"),
        ...["p50_s", "p90_s", "p99_s"].map((field) => make("td", duration(row[field]), "number")));
      return line;
    }));
  }

  async #load() {
    try {
      const from = new Date(Date.now() - DAYS * 86_400_000).toISOString();
      const query = `group=destination&busiest=${ROWS}&from=${encodeURIComponent(from)}`;
      this.#rows = (await ask(`/v1/statistics/delivery-times?${query}`)).rows;
      this.#trouble = "";
    } catch (error) { this.#trouble = excuse(error); }
    this.speak();
  }
}

// Holds: what is held and by whom, a form to hold more with a count before, and lifting.

import { askFirst } from "./dialogs.js";
import { everyStep } from "./destination.js";
import { element, excuse, make, makeButton, makeTime, repeat } from "./dom.js";
import { ask, isOperator, post } from "./session.js";
import { count, word, wordOf } from "./words.js";

const AGAIN_S = 10;
const FILTERS = ["account", "campaign", "destination", "site", "reply", "address"];

export class Holds {
  #refused; #holds = null; #timer = null; #trouble = "";

  constructor({ refused }) {
    this.#refused = refused;
    // A campaign that is paused is held.
    document.addEventListener("eilpost-holds", () => void this.#timer?.again());
    element("hold-form").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      void this.#submit(submitted.submitter?.value ?? "count");
    });
  }

  start() {
    this.speak();
    this.#timer = repeat(AGAIN_S, () => this.#load(), this.#refused);
  }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#holds = null;
    this.#trouble = element("holds-said").textContent = "";
    element("hold-form").reset();
    element("hold-new").open = false;
    element("holds").replaceChildren();
  }

  // Open the form for the mail to one destination.
  propose(destination) {
    element("hold-new").open = true;
    element("hold-form").reset();
    const field = element("hold-form").elements.namedItem("destination");
    field.value = destination;
    element("hold-form").scrollIntoView({ block: "center" });
    field.focus();
  }

  speak() {
    element("hold-account").hidden = !isOperator(); // An account holds its own mail only.
    const chosen = element("hold-for").value;
    element("hold-for").replaceChildren(...["", 1800, 7200, 28800, 86400, 604800].map((seconds) => {
      const option = make("option", wordOf("durations", String(seconds)));
      option.value = String(seconds);
      return option;
    }));
    element("hold-for").value = chosen;
    this.#draw();
  }

  async #load() {
    const before = JSON.stringify(this.#holds);
    try {
      this.#holds = (await ask("/v1/holds")).holds;
      this.#trouble = "";
    } catch (error) { this.#trouble = excuse(error); }
    if (JSON.stringify(this.#holds) !== before || this.#trouble) this.#draw();
  }

  #draw() {
    element("holds-note").textContent = this.#trouble || (this.#holds?.length === 0 ? word(isOperator() ? "no_holds" : "no_own_holds") : "");
    element("holds").replaceChildren(...(this.#holds ?? []).map((hold) => this.#line(hold)));
  }

  #line(hold) {
    const line = make("tr");
    const what = make("th", filterText(hold));
    what.scope = "row";
    const since = make("td");
    since.append(makeTime(hold.since));
    const until = make("td");
    until.append(hold.until ? makeTime(hold.until) : word("hold_forever"));
    const deeds = make("td");
    deeds.append(makeButton(word("lift"), () => this.#lift(hold)));
    line.append(what, since, until, make("td", wordOf("actors", hold.who)), make("td", hold.reason), deeds);
    return line;
  }

  async #submit(deed) {
    const form = new FormData(element("hold-form"));
    const wanted = {};
    for (const name of FILTERS) {
      const value = String(form.get(name) ?? "").trim();
      if (value && (name !== "account" || isOperator())) wanted[name] = value;
    }
    if (form.get("older")) wanted.older_s = Number(form.get("older")) * 3600;
    const said = element("holds-said");
    if (Object.keys(wanted).length === 0) { said.textContent = word("give_filter"); return; }
    try {
      said.textContent = word("loading");
      const { fits } = await everyStep("/v1/cancel", { ...wanted, dry_run: true });
      said.textContent = word("hold_counted")(count(fits));
      if (deed === "hold") await this.#hold(wanted, form, fits);
    } catch (error) { said.textContent = excuse(error); }
  }

  async #hold(wanted, form, fits) {
    const question = `${filterText(wanted)} — ${word("confirm_hold")(count(fits))}`;
    if (await askFirst(question, { yes: word("hold_put") }) === null) return;
    const body = { ...wanted, reason: String(form.get("reason")).trim() };
    if (form.get("for")) body.for_s = Number(form.get("for"));
    await post("/v1/holds", body);
    element("hold-form").reset();
    element("hold-new").open = false;
    element("holds-said").textContent = word("done");
    await this.#timer?.again();
  }

  async #lift(hold) {
    if (await askFirst(`${filterText(hold)} — ${word("confirm_lift")}`, { yes: word("lift") }) === null) return;
    try {
      await ask(`/v1/holds/${hold.hold_id}`, { method: "DELETE" });
      element("holds-said").textContent = word("done");
      await this.#timer?.again();
    } catch (error) { element("holds-said").textContent = excuse(error); }
  }
}

function filterText(wanted) {
  const parts = FILTERS.filter((name) => wanted[name] !== null && wanted[name] !== undefined)
    .map((name) => `${word(name === "reply" ? "filter_reply" : name)}: ${wanted[name]}`);
  if (wanted.older_s) parts.push(`${word("filter_older")}: ${count(wanted.older_s / 3600)}`);
  return parts.join(", ");
}

// What the engine learned from receivers' replies, step by step, and how an operator overrules it.
// Accounts see in the waiting list what is throttled; the steps themselves are for operators.

import { askFirst } from "./dialogs.js";
import { element, excuse, make, makeButton, makeTime, repeat } from "./dom.js";
import { ask, isOperator, post } from "./session.js";
import { count, moment, rate, word, wordOf } from "./words.js";

const AGAIN_S = 5;
const STEPS_FIRST = 20;
const STEPS_MAX = 1000;

export class Throttles {
  #refused; #steps = null; #after = null; #timer = null; #trouble = ""; #limit = STEPS_FIRST;

  constructor({ refused }) {
    this.#refused = refused;
    element("throttles-more").addEventListener("click", () => {
      this.#limit = Math.min(this.#limit + STEPS_FIRST, STEPS_MAX);
      void this.#timer?.again();
    });
  }

  start() {
    if (isOperator()) this.#timer = repeat(AGAIN_S, () => this.#load(), this.#refused);
    this.speak();
  }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#steps = this.#after = null;
    this.#limit = STEPS_FIRST;
    this.#trouble = element("throttles-said").textContent = "";
    element("throttles").replaceChildren();
  }

  speak() {
    element("throttles-note").textContent = !isOperator() ? word("throttles_note")
      : this.#trouble || word(this.#steps?.length === 0 ? "no_steps" : "throttles_hint");
    this.#draw();
  }

  async #load() {
    const before = JSON.stringify(this.#steps);
    try {
      const page = await ask(`/v1/shaping/audit?limit=${this.#limit}`);
      this.#steps = page.audit;
      this.#after = page.after;
      this.#trouble = "";
    } catch (error) { this.#trouble = excuse(error); }
    // What has not changed is not drawn anew, or buttons would lose their focus.
    if (JSON.stringify(this.#steps) !== before || this.#trouble) this.speak();
  }

  #draw() {
    const seen = new Set();
    element("throttles").replaceChildren(...(this.#steps ?? []).map((step) => {
      const isLatest = !seen.has(step.site);
      seen.add(step.site);
      return this.#line(step, isLatest);
    }));
    element("throttles-more").hidden = this.#after === null;
  }

  #line(step, isLatest) {
    const line = make("tr");
    line.dataset.site = step.site;
    const when = make("td");
    when.append(makeTime(step.at));
    const site = make("th", step.site);
    site.scope = "row";
    const reply = make("td", undefined, "reply");
    const said = make("span", step.reply);
    said.title = step.reply;
    reply.append(said, make("small", causeText(step.cause), "under"));
    const deeds = make("td");
    if (step.undone) deeds.append(make("span", word("undone"), "badge"));
    deeds.append(...this.#deeds(step, isLatest));
    line.append(when, site, make("td", limitsText(step.limits_before)), make("td", limitsText(step.limits_after)), reply, make("td", wordOf("actors", step.who)), deeds);
    return line;
  }

  // Pin and unpin are about a site as it is now, so they stand at its latest step.
  #deeds({ site, can_undo: canUndo, pinned: isPinned }, isLatest) {
    const deeds = [];
    const deed = (name, act) => {
      const button = makeButton(word(name), act);
      button.ariaLabel = `${button.textContent} ${site}`;
      button.dataset.deed = name;
      deeds.push(button);
    };
    if (canUndo) deed("undo", () => this.#ask(word("confirm_undo")(site), word("undo"), "undo", site));
    if (isLatest && !isPinned) deed("pin", () => this.#pin(site));
    if (isLatest && isPinned) deed("unpin", () => this.#ask(word("confirm_unpin")(site), word("unpin"), "unpin", site));
    return deeds;
  }

  async #ask(question, yes, deed, site) {
    if (await askFirst(question, { yes }) !== null) await this.#act(deed, { site });
  }

  async #pin(site) {
    const given = await askFirst(`${word("pin_title")(site)} ${word("pin_hint")}`, {
      yes: word("pin").replace(" …", ""),
      fields: [
        { name: "rate", label: word("pin_rate"), maxLength: 40 },
        { name: "connections", label: word("pin_connections"), type: "number" },
      ],
    });
    if (given === null) return;
    const body = { site };
    if (given.rate.trim()) body.rate = given.rate.trim();
    if (given.connections) body.connections = Number(given.connections);
    await this.#act("pin", body);
  }

  async #act(deed, body) {
    const said = element("throttles-said");
    try {
      await post(`/v1/shaping/${deed}`, body);
      said.textContent = word("done");
      await this.#timer?.again();
    } catch (error) { said.textContent = excuse(error); }
  }
}

// What an operator took back is told with the number of that step; a rule's place stays as it is.
const causeText = (cause) => wordOf("causes", /^undo\b/.test(cause) ? "undo" : cause);

// What held at one moment: "2/s, 3 connections, nothing until 16:10:56, pinned".
function limitsText(limits) {
  const parts = [];
  if (limits.rate_per_s !== null) parts.push(`${rate(limits.rate_per_s)}/s`);
  if (limits.connections !== null) parts.push(word("so_many_connections")(count(limits.connections)));
  if (limits.suspended_until) parts.push(word("nothing_until")(moment(limits.suspended_until)));
  if (limits.pinned) parts.push(word("pinned"));
  return parts.join(", ") || word("no_limit");
}

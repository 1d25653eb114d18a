// What the engine learned from receivers' replies, step by step, and how an operator overrules it.
// Accounts see in the waiting list what is throttled; the steps themselves are for operators.

import { askFirst } from "./dialogs.js";
import { element, excuse, make, makeButton, makeTime, repeat } from "./dom.js";
import { ask, isOperator, post } from "./session.js";
import { word, wordOf } from "./words.js";

const AGAIN_S = 5;

export class Throttles {
  #refused; #steps = null; #timer = null; #trouble = "";

  constructor({ refused }) { this.#refused = refused; }

  start() {
    if (isOperator()) this.#timer = repeat(AGAIN_S, () => this.#load(), this.#refused);
    this.speak();
  }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#steps = null;
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
      this.#steps = (await ask("/v1/shaping/audit?limit=100")).audit;
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
    reply.append(said, make("small", wordOf("causes", step.cause), "under"));
    const deeds = make("td");
    // Undo, pin and unpin are about a site as it is now, so they stand at its latest step.
    if (step.undone) deeds.append(make("span", word("undone"), "badge"));
    if (isLatest) deeds.append(...this.#deeds(step));
    line.append(when, site, make("td", step.before), make("td", step.after), reply, make("td", wordOf("actors", step.who)), deeds);
    return line;
  }

  #deeds(step) {
    const { site } = step;
    const undo = makeButton(word("undo"), () => this.#ask(word("confirm_undo")(site), word("undo"), "undo", site));
    const pin = makeButton(word("pin"), () => this.#pin(site));
    const unpin = makeButton(word("unpin"), () => this.#ask(`${word("unpin")}: ${site}?`, word("unpin"), "unpin", site));
    undo.disabled = step.undone;
    return [undo, pin, unpin];
  }

  async #ask(question, yes, deed, site) {
    if (await askFirst(question, { yes }) !== null) await this.#act(deed, { site });
  }

  async #pin(site) {
    const given = await askFirst(`${word("pin_title")(site)} ${word("pin_hint")}`, {
      yes: word("pin"),
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

// Finding mails by address, id or subject; before the first search, the newest ones.

import { asciiDomain, readableDomain } from "./domains.js";
import { element, excuse, make, repeat } from "./dom.js";
import { Missing, Refused, ask } from "./session.js";
import { mailItem } from "./story.js";
import { count, word } from "./words.js";

const FOUND_FIRST = 20;
const NEWEST_FIRST = 10;
const NEWEST_AGAIN_S = 10;
const KINDS = ["auto", "address", "id", "subject", "destination", "campaign"];

// What a text most likely is; people paste what they have.
export function kindOf(query) {
  if (/^\d{1,20}$/.test(query)) return "id";
  if (/^\S+@\S+$/.test(query)) return "address";
  if (/^@?[^\s@/]+\.[^\s@/.]{2,}$/.test(query)) return "destination";
  return "subject";
}

// The engine compares exactly; people write capitals, and umlauts or the A-labels of them. What looks
// like a domain may also stand in a subject ("invoice.pdf").
function waysToAsk(kind, query, isGuessed) {
  if (kind === "destination") {
    const domain = [kind, asciiDomain(query.replace(/^@/, ""))];
    return isGuessed ? [domain, ["subject", query]] : [domain];
  }
  const at = query.lastIndexOf("@");
  if (kind !== "address" || at < 0) return [[kind, query]];
  const [local, domain] = [query.slice(0, at), query.slice(at + 1)];
  const domains = [domain.toLowerCase(), asciiDomain(domain), readableDomain(asciiDomain(domain))];
  const texts = [query, ...[local, local.toLowerCase()].flatMap((name) => domains.map((each) => `${name}@${each}`))];
  return [...new Set(texts)].map((text) => [kind, text]);
}

export class Search {
  #open; #refused; #found = null; #after = null; #asked = ""; #isSearch = false; #version = 0; #timer = null;

  constructor({ open, refused }) {
    this.#open = open;
    this.#refused = refused;
    element("search-form").addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      const form = new FormData(submitted.target);
      void this.#answer(() => this.#search(form.get("query").trim(), form.get("kind")));
    });
    element("found-more").addEventListener("click", () => void this.#answer(() => this.#more()));
  }

  start() { this.#timer = repeat(NEWEST_AGAIN_S, () => this.#newest(), this.#refused); }

  // The newest mails, until somebody searches or wants more; not while a button of them is about
  // to be pressed.
  async #newest() {
    const isWanted = !this.#isSearch && (this.#found?.length ?? 0) <= NEWEST_FIRST;
    if (!isWanted || element("found").matches(":focus-within, :hover")) return;
    try {
      await this.#list(`limit=${NEWEST_FIRST}`, false);
      if (!this.#isSearch) this.#draw();
    } catch (error) { element("search-note").textContent = excuse(error); }
  }

  forget() {
    this.#timer?.stop();
    this.#version += 1;
    this.#found = this.#after = this.#timer = null;
    this.#isSearch = false;
    element("search-form").reset();
    this.#draw();
  }

  speak() {
    const chosen = element("search-kind").value || "auto";
    element("search-kind").replaceChildren(...KINDS.map((kind) => {
      const option = make("option", word(kind === "auto" ? "search_auto" : kind));
      option.value = kind;
      return option;
    }));
    element("search-kind").value = chosen;
    this.#draw();
  }

  async #answer(act) {
    element("search-note").textContent = word("loading");
    const mine = this.#version += 1;
    try { await act(mine); } catch (error) {
      if (mine !== this.#version) return;
      if (error instanceof Refused) { this.#refused(); return; }
      element("search-note").textContent = excuse(error);
      return;
    }
    if (mine === this.#version) this.#draw();
  }

  async #search(query, chosen) {
    if (!query) return;
    this.#isSearch = true;
    const kind = chosen === "auto" ? kindOf(query) : chosen;
    if (kind === "id") await this.#one(query);
    else await this.#first(waysToAsk(kind, query, chosen === "auto"));
    if (this.#found?.length === 1 && this.#isSearch) this.#open(this.#found[0].message_id);
  }

  // The first of several questions that finds something.
  async #first(ways) {
    const mine = this.#version;
    for (const [kind, text] of ways) {
      await this.#list(`limit=${FOUND_FIRST}&${kind}=${encodeURIComponent(text)}`, true);
      if (mine !== this.#version || this.#found.length) return;
    }
  }

  async #one(id) {
    let found = [];
    try { found = [await ask(`/v1/messages/${encodeURIComponent(id)}`)]; } catch (error) {
      if (!(error instanceof Missing)) throw error;
    }
    [this.#found, this.#after, this.#isSearch] = [found, null, true];
  }

  async #list(asked, isSearch) {
    const mine = this.#version;
    const page = await ask(`/v1/messages?${asked}`);
    if (mine !== this.#version) return;
    [this.#found, this.#after, this.#asked, this.#isSearch] = [page.messages, page.after, asked, isSearch];
  }

  async #more() {
    const mine = this.#version;
    const page = await ask(`/v1/messages?${this.#asked}&after=${encodeURIComponent(this.#after)}`);
    if (mine !== this.#version) return;
    this.#found = [...this.#found, ...page.messages];
    this.#after = page.after;
  }

  #draw() {
    element("found").replaceChildren(...(this.#found ?? []).map((mail) => mailItem(mail, this.#open)));
    element("found-more").hidden = this.#after === null;
    element("search-note").textContent = this.#note();
  }

  #note() {
    if (this.#found === null) return "";
    const n = this.#found.length;
    if (!this.#isSearch) return word(n ? "newest" : "no_events");
    if (n === 0) return word("nothing_found");
    return this.#after === null ? word("found")(count(n)) : word("at_least")(count(n));
  }
}

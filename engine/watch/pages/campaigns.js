// Campaigns: how far each is, when it will be through, and pausing, resuming and cancelling it.

import { campaignPath } from "./campaign.js";
import { askFirst } from "./dialogs.js";
import { element, excuse, make, makeButton, repeat, setClass, setText } from "./dom.js";
import { Refused, ask, isOperator, post } from "./session.js";
import { count, moment, percent, word, wordOf } from "./words.js";

const AGAIN_S = 3;
const SHOWN_FIRST = 20;
// A forecast walks over a campaign's destinations, so few are asked for, not with every look, and
// those that take long the less often.
const FORECASTS = 5;
const FORECAST_MS = 15_000;
const FORECAST_MS_MAX = 60_000;
const FORECAST_SHARE = 50;
const FINAL = ["delivered", "soft_bounced", "hard_bounced", "blocked", "cancelled"];
const DEEDS = ["pause", "resume", "cancel"];

const sum = (row, names) => names.reduce((all, name) => all + row.counts[name], 0);

export class Campaigns {
  #open; #refused; #rows = null; #timer = null; #trouble = ""; #limit = SHOWN_FIRST; #hasMore = false; #forecasts = new Map();

  // `open({campaign, account})` shows one campaign closely.
  constructor({ open, refused }) {
    this.#open = open;
    this.#refused = refused;
    element("campaigns-more").addEventListener("click", () => {
      this.#limit += SHOWN_FIRST;
      void this.#timer?.again();
    });
  }

  start() { this.#timer = repeat(AGAIN_S, () => this.#load(), this.#refused); }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#rows = null;
    this.#trouble = "";
    this.#limit = SHOWN_FIRST;
    this.#forecasts.clear();
    element("campaigns").replaceChildren();
  }

  speak() {
    this.#forecasts.clear();
    element("campaigns").replaceChildren();
    this.#draw();
  }

  async #load() {
    try {
      const page = await ask(`/v1/campaigns?limit=${this.#limit}`);
      this.#rows = page.campaigns;
      this.#hasMore = page.after !== null && page.after !== undefined;
      this.#trouble = "";
      this.#draw();
      await this.#foresee();
    } catch (error) {
      this.#trouble = excuse(error);
    }
    this.#draw();
  }

  // Ask for the forecasts of those that are on their way, the newest first.
  async #foresee() {
    const now = performance.now();
    const open = this.#rows.filter((row) => waitingIn(row) > 0 && row.state !== "cancelled");
    for (const row of open.slice(0, FORECASTS)) {
      const known = this.#forecasts.get(keyOf(row));
      if (known && now < known.until) continue;
      const began = performance.now();
      let forecast = null;
      try {
        forecast = await ask(campaignPath(row.campaign, row.account, "forecast"));
      } catch (error) {
        if (error instanceof Refused) throw error;
      }
      const ended = performance.now();
      const keptMs = Math.min(Math.max(FORECAST_MS, (ended - began) * FORECAST_SHARE), FORECAST_MS_MAX);
      this.#forecasts.set(keyOf(row), { forecast, until: ended + keptMs });
    }
  }

  #draw() {
    setText(element("campaigns-note"), this.#trouble || (this.#rows?.length === 0 ? word("no_campaigns") : ""));
    element("campaigns-more").hidden = !this.#hasMore;
    const body = element("campaigns");
    const known = new Map([...body.children].map((line) => [line.dataset.campaign, line]));
    const lines = (this.#rows ?? []).map((row) => this.#fill(known.get(keyOf(row)) ?? this.#line(row), row));
    if (lines.length !== body.children.length || lines.some((line, place) => body.children[place] !== line)) {
      body.replaceChildren(...lines);
    }
  }

  #line(row) {
    const line = make("tr");
    line.dataset.campaign = keyOf(row);
    const name = make("th");
    name.scope = "row";
    name.append(makeButton(row.campaign, () => this.#open(row), "link"));
    if (isOperator()) name.append(make("span", row.account, "under"));
    const progress = make("td");
    const bar = make("progress");
    bar.max = 1;
    bar.ariaLabel = `${word("progress")} ${word("campaign_of")(row.campaign)}`;
    progress.append(bar, make("span", "", "under"));
    const state = make("td");
    state.append(make("span", "", "badge"), make("span", "", "under"));
    const deeds = make("td");
    deeds.append(...DEEDS.map((deed) => {
      const button = makeButton(word(deed === "cancel" ? "cancel_campaign" : deed), () => this.#act(deed, row.campaign, row.account));
      button.ariaLabel = `${button.textContent} ${word("campaign_of")(row.campaign)}`;
      button.dataset.deed = deed;
      return button;
    }));
    line.append(name, state, progress, make("td", "", "number"), make("td"), deeds);
    return line;
  }

  #fill(line, row) {
    const [, state, progress, waiting, forecast, deeds] = line.children;
    const final = sum(row, FINAL);
    const [bar, text] = progress.children;
    bar.value = row.total ? final / row.total : 0;
    setText(text, `${percent(row.total ? final / row.total : 0)} · ${word("campaign_progress")({
      final: count(final), total: count(row.total), delivered: count(row.counts.delivered) })}`);
    setText(state.firstChild, row.state ? wordOf("campaign_states", row.state) : "");
    setClass(state.firstChild, `badge ${row.state === "paused" ? "state-throttled" : row.state === "cancelled" ? "state-unreachable" : ""}`);
    state.firstChild.hidden = !row.state;
    setText(state.lastChild, row.held_by?.reason ?? "");
    setText(waiting, count(waitingIn(row)));
    setText(forecast, this.#foreseen(row));
    const isPaused = row.state === "paused";
    // More may come into one that is open, so that can be paused with nothing waiting.
    const isOver = row.state === "cancelled" || (waitingIn(row) === 0 && !isPaused && !row.accepts_recipients);
    for (const button of deeds.children) {
      const { deed } = button.dataset;
      button.hidden = isOver || (deed === "pause" && isPaused) || (deed === "resume" && !isPaused);
    }
    return line;
  }

  #foreseen(row) {
    if (waitingIn(row) === 0) return row.total && !row.accepts_recipients ? word("is_through") : "";
    const forecast = this.#forecasts.get(keyOf(row))?.forecast;
    if (!forecast || row.state === "paused") return "";
    const parts = [];
    if (Date.parse(forecast.finish_at) > Date.now()) parts.push(word("through_by")(moment(forecast.finish_at)));
    // Since it was made some may have gone.
    const unknown = Math.min(forecast.unknown, waitingIn(row));
    if (unknown) parts.push(word("forecast_unknown")(count(unknown)));
    return parts.join("; ");
  }

  async #act(deed, name, account) {
    const yes = word(deed === "cancel" ? "cancel_campaign" : deed).replace(" …", "");
    if (await askFirst(word(`confirm_${deed}`)(name), { yes, danger: deed === "cancel" }) === null) return;
    try {
      await post(campaignPath(name, account, deed), {});
      document.dispatchEvent(new Event("eilpost-holds"));
      await this.#timer?.again();
    } catch (error) { element("campaigns-note").textContent = excuse(error); }
  }
}

const waitingIn = (row) => sum(row, ["queued", "deferred", "paused"]);
const keyOf = (row) => JSON.stringify([row.account, row.campaign]);

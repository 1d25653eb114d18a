// What happened over time: a chart drawn by uPlot, its sums as a legend, and the same figures as a
// table. The library is brought in by the build; without it the table is all there is.

import { element, excuse, make, makeButton, repeat, setText } from "./dom.js";
import { ask, download } from "./session.js";
import { count, stepLength, stepTime, word } from "./words.js";

// How far back, how long a step is, and how often it is worth asking again; seconds.
const PERIODS = {
  hour: { lasts: 3600, step: 60, again: 10 },
  day: { lasts: 86_400, step: 900, again: 60 },
  month: { lasts: 30 * 86_400, step: 6 * 3600, again: 300 },
};
const LINES = ["accepted", "delivered", "deferred", "bounced"];
const HEIGHT = 220;

let library = null; // A promise of the library, or of nothing.

// It is fetched when the first figures are there, so that it does not delay them.
function loadLibrary() {
  library ??= new Promise((resolve) => {
    const sheet = make("link");
    Object.assign(sheet, { rel: "stylesheet", href: "/assets/uplot.css" });
    const script = make("script");
    script.src = "/assets/uplot.js";
    script.onload = () => resolve(globalThis.uPlot ?? null);
    script.onerror = () => resolve(null);
    document.head.append(sheet, script);
  });
  return library;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  #refused; #period = "hour"; #timer = null; #figures = null; #plot = null; #trouble = ""; #version = 0;

  constructor({ refused }) {
    this.#refused = refused;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw(true));
    new ResizeObserver(() => {
      if (this.#plot) this.#plot.setSize({ width: this.#width(), height: HEIGHT });
    }).observe(element("chart-details"));
    element("chart-details").addEventListener("toggle", () => this.#drawTable());
    element("csv-series").addEventListener("click", () => void this.#keep(this.#asked(), "series.csv"));
    element("csv-destinations").addEventListener("click",
      () => void this.#keep("/v1/statistics?group=destination", "destinations.csv"));
  }

  start() {
    this.#timer?.stop();
    this.#timer = repeat(PERIODS[this.#period].again, () => this.#load(), this.#refused);
  }

  forget() {
    this.#timer?.stop();
    this.#timer = this.#figures = null;
    this.#version += 1;
    this.#trouble = "";
    this.#draw(true);
  }

  speak() {
    element("chart-periods").replaceChildren(...Object.keys(PERIODS).map((name) => {
      const button = makeButton(word(name), () => this.#choose(name));
      button.ariaPressed = String(name === this.#period);
      button.dataset.period = name;
      return button;
    }));
    this.#draw(true);
  }

  #choose(name) {
    this.#period = name;
    for (const button of element("chart-periods").children) button.ariaPressed = String(button.dataset.period === name);
    this.start();
  }

  async #load() {
    const mine = this.#version += 1;
    let found = null;
    try {
      found = figuresOf(await ask(this.#asked()));
      this.#trouble = "";
    } catch (error) { this.#trouble = excuse(error); }
    if (mine !== this.#version) return;
    const isOther = found?.step !== this.#figures?.step;
    this.#figures = found ?? this.#figures;
    await this.#draw(isOther);
  }

  #asked() {
    const { lasts, step } = PERIODS[this.#period];
    // The engine moves the beginning back to a whole step; one step more would be one too many.
    const from = new Date(Date.now() - (lasts - step) * 1000).toISOString();
    return `/v1/statistics/series?from=${encodeURIComponent(from)}&step=${step}`;
  }

  async #keep(path, name) {
    try { await download(path, name); } catch (error) { setText(element("chart-note"), excuse(error)); }
  }

  async #draw(isOther) {
    const mine = this.#version;
    const figures = this.#figures;
    this.#drawWords(figures);
    this.#drawTable();
    const uPlot = figures ? await loadLibrary() : null;
    if (mine !== this.#version) return;
    if (!uPlot || isOther) { this.#plot?.destroy(); this.#plot = null; }
    if (figures && !uPlot) this.#drawMissing();
    if (!uPlot) return;
    if (this.#plot) this.#plot.setData(plotted(figures));
    else this.#plot = new uPlot(this.#options(uPlot, figures), plotted(figures), element("chart"));
  }

  #drawWords(figures) {
    const sums = figures?.sums;
    const shown = sums && Object.fromEntries(LINES.map((name) => [name, count(sums[name])]));
    element("chart-legend").replaceChildren(...(shown ? LINES : []).map((name) => {
      const item = make("li", undefined, name);
      item.append(`${word(name)} `, make("strong", shown[name]));
      return item;
    }));
    const summary = shown ? word("chart_summary")({ period: word(this.#period), ...shown }) : "";
    element("chart").ariaLabel = summary || word("chart");
    element("chart-details").hidden = !figures;
    const isEmpty = sums && LINES.every((name) => sums[name] === 0);
    setText(element("chart-note"), this.#trouble || (isEmpty ? word("chart_empty") : ""));
  }

  #drawMissing() {
    setText(element("chart-note"), word("chart_missing"));
    element("chart-details").open = true;
  }

  #drawTable() {
    if (!element("chart-details").open || !this.#figures) { element("chart-table").replaceChildren(); return; }
    const { columns, step } = this.#figures;
    const heads = make("tr");
    heads.append(...[word("chart_time"), ...LINES.map(word)].map((text, place) => {
      const head = make("th", text, place ? "number" : "");
      head.scope = "col";
      return head;
    }));
    const body = make("tbody");
    for (let row = columns[0].length - 1; row >= 0; row -= 1) {
      const line = make("tr");
      const head = make("th", stepTime(columns[0][row], step));
      head.scope = "row";
      line.append(head, ...columns.slice(1).map((values) => make("td", count(values[row]), "number")));
      body.append(line);
    }
    const top = make("thead");
    top.append(heads);
    element("chart-table").replaceChildren(make("caption", word("chart_step")(stepLength(step))), top, body);
  }

  #width() { return Math.max(200, element("chart").parentElement.clientWidth - 34); }

  #options(uPlot, figures) {
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 } };
    return {
      width: this.#width(), height: HEIGHT, legend: { show: false }, cursor: { y: false },
      padding: [null, 28, null, null], // Half of a date that stands under the right end.
      scales: { y: { range: (plot, least, most) => [0, Math.max(5, most * 1.05)] } },
      axes: [
        { ...axis, values: (plot, ticks) => ticks.map((each) => stepTime(each, figures.step)), space: figures.step < 3600 ? 70 : 100 },
        { ...axis, size: 64, values: (plot, ticks) => ticks.map((each) => (Number.isInteger(each) ? count(each) : "")) },
      ],
      series: [{}, ...LINES.map((name) => ({
        label: name, stroke: color(`--plot-${name}`), width: name === "delivered" ? 2 : 1.5, points: { show: false },
        fill: name === "delivered" ? `${color("--plot-delivered")}22` : undefined,
        paths: uPlot.paths.stepped({ align: 1 }),
      }))],
      hooks: { setCursor: [(plot) => this.#drawCursor(plot)] },
    };
  }

  // The legend has the sums, and the figures of one step while the pointer is on it.
  #drawCursor(plot) {
    const { columns, sums, step } = this.#figures ?? {};
    if (!columns) return;
    const at = plot.cursor.idx === null || plot.cursor.idx === undefined ? null
      : Math.min(plot.cursor.idx, columns[0].length - 1);
    LINES.forEach((name, place) => {
      const value = at === null ? sums[name] : columns[place + 1][at];
      setText(element("chart-legend").children[place].lastChild, count(value));
    });
    setText(element("chart-at"), at === null ? "" : stepTime(columns[0][at], step));
  }
}

// The last step ends where the next one would begin, so that it is as wide as the others.
function plotted({ columns, step }) {
  return columns.map((values, place) => [...values, place ? values.at(-1) : values.at(-1) + step]);
}

// The steps as uPlot wants them: a column of times in seconds, then one for each line.
function figuresOf(page) {
  const value = {
    accepted: (step) => step.accepted, delivered: (step) => step.delivered, deferred: (step) => step.deferred,
    bounced: (step) => step.soft_bounced + step.hard_bounced,
  };
  const columns = [page.steps.map((step) => Date.parse(step.at) / 1000), ...LINES.map((name) => page.steps.map(value[name]))];
  const sums = Object.fromEntries(LINES.map((name, place) => [name, columns[place + 1].reduce((a, b) => a + b, 0)]));
  return { columns, sums, step: page.step_s };
}

// Mail that waits, by destination: sorted, filtered, a page at a time. Ten thousand destinations
// are ten thousand entries of a map and at most a hundred rows of the table.

import { readableDomain } from "./domains.js";
import { element, make, makeButton, setClass, setText } from "./dom.js";
import { count, limitText, moment, rate, word, wordOf } from "./words.js";

const ROWS = 100;
// Rows that change places under the pointer cannot be read, so the order holds for a while.
const ORDER_MS = 1000;

export const waitingIn = (row) => row.queued + row.deferred + row.paused;

// The cause in words: what holds it back, the reason that was given, and the limit if it is one.
export function causeOf(row) {
  const held = row.held_by;
  const isFlowing = row.state === "flowing"; // Perhaps at the pace of a limit: that is said, too.
  const what = held && !isFlowing ? wordOf("codes", held.code) : wordOf("states", row.state);
  const reason = isFlowing ? null : row.reason ?? held?.reason;
  const why = [reason ? wordOf("reasons", reason) : "", limitText(held?.limit)].filter(Boolean).join(", ");
  return why ? `${what} (${why})` : what;
}

const isNamed = (domain, wanted) => domain.includes(wanted) || readableDomain(domain).includes(wanted);
const sinceOf = (row) => row.since ?? row.held_by?.since ?? "";
const replyOf = (row) => row.last_reply || row.held_by?.reply || "";

// Each column: its word, its class, what it is sorted by, what it shows.
const COLUMNS = [
  ["destination", "", (row) => row.destination, null],
  ["waiting_count", "number", waitingIn, (row) => count(waitingIn(row))],
  ["state", "cause", (row) => causeOf(row), causeOf],
  ["since", "", sinceOf, (row) => moment(sinceOf(row))],
  ["last_reply", "reply", replyOf, replyOf],
  ["next_attempt", "", (row) => row.next_attempt_at ?? "", (row) => moment(row.next_attempt_at)],
  ["rate_column", "number", (row) => row.rate_per_s ?? 0, (row) => (row.rate_per_s ? rate(row.rate_per_s) : "")],
  ["connections", "number", (row) => row.connections ?? 0, (row) => (row.connections ? count(row.connections) : "")],
];
const DOWN_FIRST = new Set(["waiting_count", "rate_column", "connections", "since"]);

export class WaitingTable {
  #destinations = new Map(); #open; #order = []; #orderedAt = 0; #isStale = true; #page = 0;
  #sortedBy = "waiting_count"; #isDescending = true; #isKnown = false;

  // `open(name)` shows one destination closely.
  constructor(open) {
    this.#open = open;
    element("waiting-filter").addEventListener("input", () => { this.#page = 0; this.#redraw(); });
    element("waiting-previous").addEventListener("click", () => this.#turn(-1));
    element("waiting-next").addEventListener("click", () => this.#turn(1));
  }

  take(rows, isSnapshot) {
    if (isSnapshot) {
      this.#destinations.clear();
      // The order names what is no longer there.
      this.#orderedAt = -Infinity;
      this.#isStale = true;
    }
    for (const row of rows) {
      const before = this.#destinations.get(row.destination);
      if (!before || waitingIn(before) > 0 !== waitingIn(row) > 0) this.#isStale = true;
      this.#destinations.set(row.destination, row);
    }
    this.#isKnown = true;
  }

  get(name) { return this.#destinations.get(name); }

  forget() {
    this.#destinations.clear();
    this.#order = [];
    this.#page = 0;
    this.#isStale = true;
    this.#isKnown = false;
    element("waiting-filter").value = "";
    element("waiting").replaceChildren();
    element("waiting-more").textContent = element("waiting-said").textContent = "";
  }

  speak() { this.#drawHeads(); this.#redraw(); }

  draw() {
    if (!this.#isKnown) return;
    const now = performance.now();
    const isRead = element("waiting").matches(":hover, :focus-within");
    if (now - this.#orderedAt >= ORDER_MS && (this.#isStale || !isRead)) this.#arrange(now);
    const pages = Math.max(1, Math.ceil(this.#order.length / ROWS));
    this.#page = Math.min(this.#page, pages - 1);
    const from = this.#page * ROWS;
    this.#drawRows(this.#order.slice(from, from + ROWS));
    this.#drawNote(from, pages);
  }

  #redraw() { this.#orderedAt = -Infinity; this.#isStale = true; this.draw(); this.#say(); }

  #say() { setText(element("waiting-said"), this.#isKnown ? element("waiting-more").textContent : ""); }

  #turn(step) {
    this.#page = Math.max(0, this.#page + step);
    this.draw();
    this.#say();
    element("waiting").closest(".scroll").scrollTop = 0;
  }

  #arrange(now) {
    const wanted = element("waiting-filter").value.trim().toLowerCase();
    const sortKey = COLUMNS.find(([name]) => name === this.#sortedBy)[2];
    const sign = this.#isDescending ? -1 : 1;
    const keyed = [];
    for (const row of this.#destinations.values()) {
      if (waitingIn(row) > 0 && isNamed(row.destination, wanted)) keyed.push([sortKey(row), row.destination]);
    }
    keyed.sort((a, b) => (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : a[1] < b[1] ? -1 : 1));
    this.#order = keyed.map(([, name]) => name);
    this.#orderedAt = now;
    this.#isStale = false;
  }

  #drawHeads() {
    const line = make("tr");
    for (const [name, className] of COLUMNS) {
      const head = make("th", undefined, className === "number" ? "number" : "");
      head.scope = "col";
      if (name === this.#sortedBy) head.ariaSort = this.#isDescending ? "descending" : "ascending";
      const button = makeButton(word(name), () => this.#sortBy(name));
      button.dataset.sort = name;
      head.append(button);
      line.append(head);
    }
    element("waiting-heads").replaceChildren(line);
  }

  #sortBy(name) {
    this.#isDescending = name === this.#sortedBy ? !this.#isDescending : DOWN_FIRST.has(name);
    this.#sortedBy = name;
    this.#page = 0;
    this.#drawHeads();
    element("waiting-heads").querySelector(`[data-sort="${name}"]`).focus();
    this.#redraw();
  }

  #drawRows(names) {
    const body = element("waiting");
    const known = new Map([...body.children].map((line) => [line.dataset.destination, line]));
    const lines = names.map((name) => this.#fillLine(known.get(name) ?? this.#newLine(name), this.#destinations.get(name)));
    // Lines that stay where they are are not touched: moving one takes its focus and selection.
    if (lines.length === body.children.length && lines.every((line, place) => body.children[place] === line)) return;
    body.replaceChildren(...lines);
    if (lines.length) performance.mark("eilpost-waiting");
  }

  #newLine(name) {
    const line = make("tr");
    line.dataset.destination = name;
    const head = make("th");
    head.scope = "row";
    const button = makeButton(readableDomain(name), () => this.#open(name), "link");
    button.title = name;
    head.append(button);
    line.append(head);
    for (const [column, className] of COLUMNS.slice(1)) {
      const cell = make("td", undefined, className);
      if (column === "last_reply") cell.append(make("span"));
      line.append(cell);
    }
    return line;
  }

  #fillLine(line, row) {
    COLUMNS.forEach(([name, , , shown], place) => {
      const cell = line.children[place];
      if (shown) setText(name === "last_reply" ? cell.firstChild : cell, shown(row));
      if (name === "state") {
        setClass(cell, `cause state-${row.state}`);
        cell.title = row.held_by?.text ?? "";
      }
      if (name === "last_reply") cell.title = replyOf(row);
    });
    return line;
  }

  #drawNote(from, pages) {
    const all = this.#order.length;
    const isFiltered = element("waiting-filter").value.trim() !== "";
    setText(element("waiting-more"), all === 0 ? word(isFiltered ? "nothing_fits" : "nobody_waits")
      : word("rows_of")({ from: count(from + 1), to: count(Math.min(from + ROWS, all)), all: count(all) }));
    element("waiting-pages").hidden = pages === 1;
    element("waiting-previous").disabled = this.#page === 0;
    element("waiting-next").disabled = this.#page === pages - 1;
  }
}

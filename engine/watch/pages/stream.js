// The page's end of the event stream: keeps one websocket and goes on from its last cursor after
// every break, so that a restart of the engine loses nothing.

import { Refused, ask, post } from "./session.js";
import { currentLanguage } from "./words.js";

const CURSOR = "eilpost-cursor";
const EVENTS_FIRST = 50; // What the list of events shows at most.
const WAIT_MS = 500;
const WAIT_MS_MAX = 4000;

// `show` has connected(), lost(), refused(), totals(value, snapshot),
// destinations(value, snapshot), events(list) and gap().
export class Stream {
  #show; #socket = null; #stopped = false; #waitMs = WAIT_MS; #isFresh = true;

  constructor(show) { this.#show = show; }

  async start() {
    while (!this.#stopped) {
      try {
        const { ticket } = await post("/v1/stream/tickets");
        if (this.#stopped) return;
        await this.#follow(ticket);
      } catch (error) {
        if (error instanceof Refused) {
          if (!this.#stopped) this.#show.refused();
          return;
        }
      }
      if (this.#stopped) return;
      this.#show.lost();
      await new Promise((wake) => setTimeout(wake, this.#waitMs * (0.75 + Math.random() / 2)));
      this.#waitMs = Math.min(this.#waitMs * 2, WAIT_MS_MAX);
    }
  }

  stop() { this.#stopped = true; this.#socket?.close(); }

  #follow(ticket) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(
      `${scheme}://${location.host}/v1/stream?ticket=${encodeURIComponent(ticket)}&lang=${currentLanguage()}`,
      "eilpost.v1+json");
    this.#socket = socket;
    return new Promise((done) => {
      socket.onopen = () => {
        this.#waitMs = WAIT_MS;
        this.#show.connected();
        socket.send(JSON.stringify({ watch: "totals" }));
        socket.send(JSON.stringify({ watch: "destinations" }));
        void this.#subscribe(socket);
      };
      socket.onmessage = (message) => { if (!this.#stopped) this.#take(JSON.parse(message.data)); };
      socket.onclose = done;
    });
  }

  // A page that has just been opened begins with what happened last and goes on from there, so that
  // nothing is missing in between; after a break it goes on from where it was.
  async #subscribe(socket) {
    if (this.#isFresh) {
      try {
        const recent = await ask(`/v1/events?last=${EVENTS_FIRST}`);
        if (this.#stopped) return;
        sessionStorage.setItem(CURSOR, recent.cursor);
        this.#show.events(recent.events);
      } catch { socket.close(); return; }
      this.#isFresh = false;
    }
    const after = sessionStorage.getItem(CURSOR) ?? "now";
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ subscribe: { after } }));
  }

  #take(frame) {
    if (frame.totals) this.#show.totals(frame.totals, frame.snapshot);
    if (frame.destinations) this.#show.destinations(frame.destinations, frame.snapshot);
    if (frame.gap) this.#show.gap(frame.gap);
    if (frame.cursor) {
      sessionStorage.setItem(CURSOR, frame.cursor);
      if (frame.events.length) this.#show.events(frame.events);
    }
  }
}

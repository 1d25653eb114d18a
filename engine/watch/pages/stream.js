// The page's end of the event stream: signs in, keeps one websocket, and goes on from
// its last cursor after every break, so that a restart of the engine loses nothing.

import { currentLanguage } from "./words.js";

const credentials = {
  get: () => sessionStorage.getItem("credentials"),
  set: (key, secret) => sessionStorage.setItem(
    "credentials", btoa(String.fromCharCode(...new TextEncoder().encode(`${key}:${secret}`)))),
  clear: () => sessionStorage.clear(),
};

export class Refused extends Error {}

export async function ask(path, options = {}) {
  const reply = await fetch(path, {
    ...options, cache: "no-store", credentials: "omit",
    headers: {
      Authorization: `Basic ${credentials.get() ?? ""}`, Accept: "application/json",
      "Accept-Language": currentLanguage(),
    },
  });
  if (reply.status === 401 || reply.status === 403) throw new Refused();
  if (!reply.ok) throw new Error(String(reply.status));
  return reply.json();
}

// An operator's link carries a token that works once; it buys credentials for this tab.
export async function redeemOperatorToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token")
    ?? new URLSearchParams(location.search).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  const reply = await fetch("/v1/operator/sessions", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (!reply.ok) throw new Refused();
  const session = await reply.json();
  credentials.clear();
  credentials.set(session.api_key, session.secret_key);
}

export const signedIn = () => credentials.get() !== null;
export const signIn = (key, secret) => { credentials.clear(); credentials.set(key, secret); };
export const signOut = () => credentials.clear();

// `show` has connected(), lost(), refused(), totals(value, snapshot),
// destinations(value, snapshot), events(list) and gap().
export class Stream {
  #show; #socket = null; #stopped = false; #waitMs = 500;

  constructor(show) { this.#show = show; }

  async start() {
    while (!this.#stopped) {
      try {
        const { ticket } = await ask("/v1/stream/tickets", { method: "POST" });
        await this.#follow(ticket);
      } catch (error) {
        if (error instanceof Refused) { this.#show.refused(); return; }
      }
      if (this.#stopped) return;
      this.#show.lost();
      await new Promise((wake) => setTimeout(wake, this.#waitMs * (0.75 + Math.random() / 2)));
      this.#waitMs = Math.min(this.#waitMs * 2, 4000);
    }
  }

  stop() { this.#stopped = true; this.#socket?.close(); }

  #follow(ticket) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(
      `${scheme}://${location.host}/v1/stream?ticket=${encodeURIComponent(ticket)}`, "eilpost.v1+json");
    this.#socket = socket;
    return new Promise((done) => {
      socket.onopen = () => {
        this.#waitMs = 500;
        this.#show.connected();
        socket.send(JSON.stringify({ watch: "totals" }));
        socket.send(JSON.stringify({ watch: "destinations" }));
        socket.send(JSON.stringify({ subscribe: { after: sessionStorage.getItem("cursor") ?? "now" } }));
      };
      socket.onmessage = (message) => this.#take(JSON.parse(message.data));
      socket.onclose = done;
    });
  }

  #take(frame) {
    if (frame.totals) this.#show.totals(frame.totals, frame.snapshot);
    if (frame.destinations) this.#show.destinations(frame.destinations, frame.snapshot);
    if (frame.gap) this.#show.gap(frame.gap);
    if (frame.cursor) {
      sessionStorage.setItem("cursor", frame.cursor);
      if (frame.events.length) this.#show.events(frame.events);
    }
  }
}

// Who is signed in, and how the engine is asked. Credentials live in this tab only and travel in a
// header that no other page can make a browser send: nothing here is a cookie.

import { currentLanguage } from "./words.js";

const STORED = "eilpost-credentials";
const OPERATOR_PREFIX = "operator-";

export class Refused extends Error {} // The credentials open nothing (any more).
export class Missing extends Error {} // There is no such thing, or this engine has no such route.

// The engine said no, and why: `message` is its sentence for people.
export class Failed extends Error {
  constructor(status, detail) {
    super(detail?.message ?? String(status));
    this.status = status;
    this.where = detail?.where ?? "";
  }
}

export const signedIn = () => sessionStorage.getItem(STORED) !== null;

export function signIn(key, secret) {
  signOut();
  const octets = new TextEncoder().encode(`${key}:${secret}`);
  sessionStorage.setItem(STORED, btoa(String.fromCharCode(...octets)));
}

// Everything of the session goes: the place in the stream belongs to it.
export const signOut = () => sessionStorage.clear();

export function isOperator() {
  try { return atob(sessionStorage.getItem(STORED) ?? "").startsWith(OPERATOR_PREFIX); } catch { return false; }
}

// GET, or whatever `options` say; `options.json` becomes the body. Raises Refused, Missing, Failed,
// and TypeError (fetch's own) when the engine does not answer.
export async function ask(path, options = {}) {
  const reply = await answerOf(path, options);
  return reply.status === 204 ? null : reply.json();
}

// A file as the engine writes it, kept under `name`: a link could not carry the credentials.
export async function download(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await answerOf(path, { accept: "text/csv" })).blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function answerOf(path, options) {
  const headers = {
    Authorization: `Basic ${sessionStorage.getItem(STORED) ?? ""}`, Accept: options.accept ?? "application/json",
    "Accept-Language": currentLanguage(),
  };
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, {
    method: options.method ?? "GET", headers, cache: "no-store", credentials: "omit",
    body: options.json === undefined ? undefined : JSON.stringify(options.json),
  });
  if (reply.ok) return reply;
  const detail = (await reply.json().catch(() => ({}))).error;
  if (reply.status === 401) throw new Refused(detail?.message);
  if (reply.status === 404) throw new Missing(detail?.message);
  throw new Failed(reply.status, detail);
}

export const post = (path, json) => ask(path, { method: "POST", json });

const operatorToken = () => new URLSearchParams(location.hash.slice(1)).get("token")
  ?? new URLSearchParams(location.search).get("token");

export const hasOperatorToken = () => Boolean(operatorToken());

// An operator's link carries a token that works once; it buys credentials for this tab. The token
// leaves the address bar before anything else happens.
export async function redeemOperatorToken() {
  const token = operatorToken();
  history.replaceState(null, "", location.pathname);
  const reply = await fetch("/v1/operator/sessions", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (!reply.ok) throw new Refused();
  const session = await reply.json();
  signIn(session.api_key, session.secret_key);
}

// Which language the page speaks, and how it writes numbers, times and durations in it.
// The browser's list decides by its order; a choice made on the page is remembered.

import { english } from "./words_en.js";
import { german } from "./words_de.js";

const languages = { en: english, de: german };
const REMEMBERED = "eilpost-language";

// The first language of the reader's list that we have: "fr, en, de" is English, "fr, de, en" German.
export function chosenLanguage(wanted, remembered) {
  if (remembered in languages) return remembered;
  const names = wanted.map((each) => each.toLowerCase().split("-")[0]);
  return names.find((each) => each in languages) ?? "en";
}

function recall() {
  // A browser may forbid storage; then the choice lives as long as the page.
  try { return localStorage.getItem(REMEMBERED) ?? ""; } catch { return ""; }
}

let language = chosenLanguage(navigator.languages ?? [navigator.language], recall());

export const word = (name) => languages[language][name] ?? name;
export const wordOf = (kind, name) => languages[language][kind][name] ?? name ?? "";
export const currentLanguage = () => language;

export function switchLanguage() {
  language = language === "de" ? "en" : "de";
  try { localStorage.setItem(REMEMBERED, language); } catch { /* see recall() */ }
}

export function fillWords(root) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of root.querySelectorAll("[data-label]")) element.ariaLabel = word(element.dataset.label);
}

// A limit as in the configuration, "20/min, burst 5" or "20 connections", for people.
export function limitText(limit) {
  if (!limit) return "";
  const connections = /^(\d+) connections?$/.exec(limit);
  if (connections) return word("so_many_connections")(count(Number(connections[1])));
  return limit
    .replaceAll(/(\d+(?:\.\d+)?)\/(s|min|h|day|month)\b/g, (_, n, unit) => `${count(Number(n))} ${wordOf("per", unit)}`)
    .replace(/, burst (\d+)/, (_, n) => (n === "1" ? "" : `, ${word("at_once")(count(Number(n)))}`));
}

// Making a formatter costs more than using it a thousand times.
const formatters = new Map();
function formatter(kind, options) {
  const key = `${language}${kind.name}${JSON.stringify(options)}`;
  if (!formatters.has(key)) formatters.set(key, new kind(language, options));
  return formatters.get(key);
}

export const count = (n) => formatter(Intl.NumberFormat, {}).format(n);

// Rounded down: what is not quite done is not done.
export const percent = (share) => formatter(Intl.NumberFormat, { style: "percent", maximumFractionDigits: 1 })
  .format(Math.floor(share * 1000) / 1000);

// A rate with as many places as mean something: 0.05, 1.4, 230.
export function rate(perSecond) {
  const places = perSecond < 1 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: perSecond < 10 ? 1 : 0 };
  return formatter(Intl.NumberFormat, places).format(perSecond);
}

// Every hour by two figures, as logs and receivers' replies have it.
const HOURS = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const CLOCK = { ...HOURS, second: "2-digit" };
const DAY = { day: "2-digit", month: "2-digit" };

// Today by the clock alone, else with its date.
export function moment(text) {
  if (!text) return "";
  const when = new Date(text);
  const today = new Date();
  const options = when.toDateString() === today.toDateString() ? CLOCK
    : when.getFullYear() === today.getFullYear() ? { ...DAY, ...CLOCK }
      : { ...DAY, year: "numeric", ...HOURS };
  return formatter(Intl.DateTimeFormat, options).format(when);
}

// A time on an axis or in a table of steps: as coarse as the steps are.
export function stepTime(unixSeconds, stepSeconds) {
  const options = stepSeconds < 3600 ? HOURS : stepSeconds < 86400 ? { ...DAY, ...HOURS } : DAY;
  return formatter(Intl.DateTimeFormat, options).format(new Date(unixSeconds * 1000));
}

export function stepLength(seconds) {
  if (seconds < 3600) return word("minutes")(Math.round(seconds / 60));
  if (seconds < 86400) return word("hours")(Math.round(seconds / 3600));
  return word("days")(Math.round(seconds / 86400));
}

// A duration to two figures: "0.4 s", "12 s", "3.5 min", "2 h".
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const [value, unit] = seconds < 100 ? [seconds, "s"] : seconds < 6000 ? [seconds / 60, "min"]
    : seconds < 172800 ? [seconds / 3600, "h"] : [seconds / 86400, "d"];
  const number = formatter(Intl.NumberFormat, { maximumSignificantDigits: value < 100 ? 2 : 3 }).format(value);
  return `${number} ${unit === "d" ? wordOf("units", "d") : unit}`;
}

export const timeZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

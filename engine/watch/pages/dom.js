// Making and changing elements. All text from mails, replies and addresses enters the page through
// here as text nodes; nothing is ever parsed as HTML.

import { Failed, Missing, Refused } from "./session.js";
import { moment, word } from "./words.js";

export const element = (id) => document.getElementById(id);

export function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function makeButton(text, act, className) {
  const button = make("button", text, className);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

export function makeTime(text, className) {
  const time = make("time", moment(text), className);
  if (text) time.dateTime = text;
  return time;
}

// A screen reader hears nothing, and a selection stays, where nothing has changed.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setClass(target, name) {
  if (target.className !== name) target.className = name;
}

// Facts as a list of names and values; those without a value are left out.
export function fillFacts(list, facts) {
  list.replaceChildren(...facts.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .flatMap(([name, value]) => {
      const shown = make("dd");
      shown.append(value); // Text becomes a text node, an element stays one.
      return [make("dt", name), shown];
    }));
}

// What a failed question means for the reader, in words.
export function excuse(error) {
  if (error instanceof Missing) return word("not_here");
  if (error instanceof Failed) return error.status === 403 ? word("refused") : error.message;
  if (error instanceof TypeError) return word("no_engine");
  throw error;
}

// Ask again every `seconds` while the page can be seen, and at once when it is seen again or
// `again()` is called. Whoever signs out calls `stop()`. A refusal is for the whole page to act on,
// so it goes to `refused`.
export function repeat(seconds, act, refused) {
  let timer = null;
  let stopped = false;
  let running = null;
  async function run() {
    clearTimeout(timer);
    try {
      if (!document.hidden) await act();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (!stopped) refused();
    } finally {
      // Whatever went wrong once may go right the next time.
      if (!stopped) timer = setTimeout(again, seconds * 1000);
    }
  }
  function again() {
    if (stopped) return Promise.resolve();
    running ??= run().finally(() => { running = null; });
    return running;
  }
  document.addEventListener("visibilitychange", again);
  void again();
  return {
    again,
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", again);
    },
  };
}

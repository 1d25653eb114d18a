// One destination closely: what holds its mail back, what can be done about it, its latest mails.

import { askFirst } from "./dialogs.js";
import { readableDomain } from "./domains.js";
import { excuse, fillFacts, make, makeButton, makeTime } from "./dom.js";
import { ask, post } from "./session.js";
import { mailItem } from "./story.js";
import { count, limitText, rate, word } from "./words.js";

const MAILS_SHOWN = 20;

// What the panel shows for a destination: {title, nodes}. `open(messageId)` goes on to a mail,
// `hold(name)` to the form that holds its mail.
export async function destinationDetail(name, open, hold) {
  const path = encodeURIComponent(name);
  try {
    const [why, listed] = await Promise.all([
      ask(`/v1/destinations/${path}/explain`), ask(`/v1/messages?limit=${MAILS_SHOWN}&destination=${path}`)]);
    return { title: word("destination_title")(readableDomain(name)), nodes: told(why, listed.messages, open, hold) };
  } catch (error) {
    return { title: word("destination_title")(readableDomain(name)), nodes: [make("p", excuse(error))] };
  }
}

function told(why, mails, open, hold) {
  const explained = make("div", undefined, "told");
  const cause = make("p", why.held_by?.text ?? "");
  cause.id = "destination-why";
  explained.append(cause, make("p", why.advice));
  const waiting = why.queued + why.deferred + why.paused;
  const held = why.held_by;
  const facts = make("dl", undefined, "facts");
  fillFacts(facts, [
    [word("waiting_count"), count(waiting)], [word("since"), held?.since ? makeTime(held.since) : ""],
    [word("last_reply"), held?.reply], [word("limit"), limitText(held?.limit)],
    [word("next_attempt"), why.next_attempt_at ? makeTime(why.next_attempt_at) : ""],
    [word("rate"), why.rate_per_s ? rate(why.rate_per_s) : ""],
  ]);
  const causes = make("ul", undefined, "mails");
  causes.id = "destination-causes";
  causes.append(...why.causes.map((cause) => causeItem(cause, why.advice)));
  // What all wait for was said above.
  const isOne = why.causes.length <= 1 && why.causes[0]?.code === held?.code;
  const waitFor = why.causes.length && !isOne
    ? [make("h3", word(why.is_exact ? "wait_for" : "wait_for_about")), causes] : [];
  const said = make("p");
  said.role = "status";
  const deeds = make("div", undefined, "choice");
  const tryNow = makeButton(word("try_now"), () => retry(why.destination, waiting, said));
  const holdHere = makeButton(word("hold_here"), () => hold(why.destination));
  tryNow.disabled = waiting === 0;
  deeds.append(tryNow, holdHere);
  const list = make("ul", undefined, "mails");
  list.append(...mails.map((mail) => mailItem(mail, open)));
  return [explained, facts, ...waitFor, deeds, said, make("h3", word("mails_there")),
    mails.length ? list : make("p", word("no_mails_there"), "hint")];
}

function causeItem(cause, knownAdvice) {
  const item = make("li");
  item.append(make("strong", count(cause.count)), " ", make("span", cause.text));
  if (cause.reply) item.append(make("span", cause.reply, "under"));
  if (cause.next_attempt_at) {
    const next = make("span", `${word("next_attempt")}: `, "under");
    next.append(makeTime(cause.next_attempt_at));
    item.append(next);
  }
  if (cause.advice !== knownAdvice) item.append(make("span", cause.advice, "under"));
  return item;
}

async function retry(destination, waiting, said) {
  const question = `${word("try_now")}: ${readableDomain(destination)}, ${word("waiting_there")(count(waiting))}?`;
  if (await askFirst(question, { yes: word("try_now") }) === null) return;
  try {
    const { fits, held } = await everyStep("/v1/retry", { destination });
    const tried = word("tried_now")(count(fits - held));
    said.textContent = held ? `${tried} ${word("held_still")(count(held))}` : tried;
  } catch (error) { said.textContent = excuse(error); }
}

// Go through all mail that fits, a step an answer; return how many there were in all, and how many
// of them a hold keeps back. What was due already and waited for its destination is not "changed", so
// that is not what people count.
export async function everyStep(path, body) {
  let fits = 0;
  let held = 0;
  let after = null;
  do {
    const step = await post(path, after === null ? body : { ...body, after });
    fits += Object.values(step.matched).reduce((a, b) => a + b, 0);
    held += (step.held ?? []).reduce((sum, hold) => sum + hold.mails, 0);
    after = step.after;
  } while (after !== null);
  return { fits, held };
}

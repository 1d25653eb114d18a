// One mail's story: where it is, what holds it back, what can be done, and all that happened to it.

import { excuse, fillFacts, make, makeButton, makeTime } from "./dom.js";
import { eventLine } from "./happenings.js";
import { Missing, ask } from "./session.js";
import { count, limitText, moment, word, wordOf } from "./words.js";

// What the panel shows for a message id: {title, nodes, mail}.
export async function storyOf(messageId) {
  try {
    const [mail, why] = await Promise.all(["", "/explain"].map((part) => ask(`/v1/messages/${messageId}${part}`)));
    return { title: word("story_title")(mail), nodes: told(mail, why), mail: mail.message_id };
  } catch (error) {
    const text = error instanceof Missing ? word("no_such_mail") : excuse(error);
    return { title: `${word("message_id")} ${messageId}`, nodes: [make("p", text)] };
  }
}

function told(mail, why) {
  const title = make("h3", mail.subject || word("no_subject"));
  title.id = "story-title";
  const now = make("p");
  now.id = "story-now";
  const next = moment(why.next_attempt_at ?? mail.next_attempt_at);
  now.append(make("span", wordOf("status", mail.status), `badge is-${mail.status}`), " ", word("now")({ next_attempt_at: next }));
  const explained = make("div", undefined, "told");
  const cause = make("p", why.held_by?.text ?? "");
  cause.id = "story-why";
  const advice = make("p", why.advice);
  advice.id = "story-advice";
  explained.append(cause, advice);
  const facts = make("dl", undefined, "facts");
  facts.id = "story-facts";
  fillFacts(facts, factsOf(mail, why));
  const events = make("ol", undefined, "timeline");
  events.id = "story-events";
  events.append(...mail.history.map(eventLine));
  return [title, now, explained, facts, make("h3", word("story")), events];
}

function factsOf(mail, why) {
  const held = why.held_by;
  return [
    [word("since"), held?.since ? makeTime(held.since) : ""], [word("last_reply"), held?.reply || mail.reply],
    [word("limit"), limitText(held?.limit)], [word("ahead"), why.ahead ? count(why.ahead) : ""],
    [word("expires"), why.expires_at ? makeTime(why.expires_at) : ""],
    [word("accepted_at"), makeTime(mail.accepted_at)],
    [word("finished"), mail.finished_at ? makeTime(mail.finished_at) : ""],
    [word("sender"), mail.sender], [word("campaign"), mail.campaign], [word("account"), mail.account],
    [word("custom_id"), mail.custom_id], [word("size"), word("octets")(count(mail.size))],
    [word("message_id"), String(mail.message_id)],
  ];
}

// A mail in a list: a button with its time, address, status and subject.
export function mailItem(mail, open) {
  const item = make("li");
  const button = makeButton("", () => open(mail.message_id));
  button.append(makeTime(mail.accepted_at), make("span", mail.address, "grow"),
    make("span", wordOf("status", mail.status), `is-${mail.status}`),
    make("span", mail.subject || word("no_subject"), "under clipped"));
  item.append(button);
  return item;
}

// One campaign closely: how much of it waits where, what holds it back, and when it will be through.

import { readableDomain } from "./domains.js";
import { excuse, fillFacts, make, makeButton, makeTime } from "./dom.js";
import { ask, isOperator } from "./session.js";
import { count, word, wordOf } from "./words.js";

// Names are an account's own, so an operator says whose is meant.
export function campaignPath(campaign, account, part) {
  const whose = isOperator() ? `?account=${encodeURIComponent(account)}` : "";
  return `/v1/campaigns/${encodeURIComponent(campaign)}/${part}${whose}`;
}

// What the panel shows for a campaign: {title, nodes}. `open(destination)` goes on to a destination.
export async function campaignDetail({ campaign, account }, open) {
  const title = `${word("campaign")} ${campaign}`;
  try {
    const [why, forecast] = await Promise.all(["explain", "forecast"].map((part) => ask(campaignPath(campaign, account, part))));
    return { title, nodes: told(why, forecast, open) };
  } catch (error) {
    return { title, nodes: [make("p", excuse(error))] };
  }
}

function told(why, forecast, open) {
  const explained = make("p", forecast.text, "told");
  explained.id = "campaign-forecast";
  const facts = make("dl", undefined, "facts");
  const when = (time) => (time ? makeTime(time) : "");
  fillFacts(facts, [
    [word("total"), count(forecast.total)], [word("delivered"), count(forecast.delivered)],
    [word("waiting_count"), count(forecast.waiting)], [word("paused"), forecast.paused ? count(forecast.paused) : ""],
    [word("earliest"), when(forecast.earliest_at)], [word("expected"), when(forecast.finish_at)],
    [word("latest"), when(forecast.latest_at)], [word("next_attempt"), when(why.next_attempt_at)],
    ...Object.entries(why.waiting_by_code).map(([code, n]) => [wordOf("codes", code), count(n)]),
  ]);
  const list = make("ul", undefined, "mails");
  list.append(...why.destinations.map((row) => destinationItem(row, open)));
  return [explained, facts, make("h3", word("waits_where")),
    why.destinations.length ? list : make("p", word("nobody_waits"), "hint")];
}

function destinationItem(row, open) {
  const item = make("li");
  const button = makeButton("", () => open(row.destination));
  button.append(make("span", count(row.queued + row.deferred + row.paused)), make("span", readableDomain(row.destination), "grow"),
    make("span", row.held_by ? wordOf("codes", row.held_by.code) : "", `state-${row.state}`),
    make("span", row.held_by?.text ?? "", "under"));
  item.append(button);
  return item;
}

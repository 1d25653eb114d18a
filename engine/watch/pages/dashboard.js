// The dashboard: who is signed in, what is shown, and when it is drawn. Each part of the page is a
// module of its own; this one starts them, hands them the stream's frames, and ends them.

import { campaignDetail } from "./campaign.js";
import { Campaigns } from "./campaigns.js";
import { Chart } from "./chart.js";
import { destinationDetail } from "./destination.js";
import { closeDetail, detailHears, openDetail, refreshDetail, wireDetail } from "./detail.js";
import { element, setText } from "./dom.js";
import { drawEvents, forgetEvents, speakEvents, takeEvents } from "./happenings.js";
import { Holds } from "./holds.js";
import { Search } from "./search.js";
import { Refused, hasOperatorToken, isOperator, redeemOperatorToken, signIn, signOut, signedIn } from "./session.js";
import { storyOf } from "./story.js";
import { Stream } from "./stream.js";
import { Throttles } from "./throttles.js";
import { Times } from "./times.js";
import { drawTotals, forgetTotals, takeTotals } from "./totals.js";
import { WaitingTable } from "./waiting.js";
import { currentLanguage, fillWords, switchLanguage, timeZone, word } from "./words.js";

// Rates fall to nothing when no frame comes any more, so totals are drawn by the clock, too.
const CLOCK_MS = 1000;

let stream = null;
let isDrawPlanned = false;

const openMail = (messageId) => openDetail(() => storyOf(messageId));
const openMailDeeper = (messageId) => openDetail(() => storyOf(messageId), { isDeeper: true });
const refused = () => { leave(); element("sign-in-error").textContent = word("wrong_credentials"); };
const holds = new Holds({ refused });
const showDestination = (name) => () => destinationDetail(name, openMailDeeper, holdThere);
const waiting = new WaitingTable((name) => openDetail(showDestination(name)));
const openDestinationDeeper = (name) => openDetail(showDestination(name), { isDeeper: true });
const openCampaign = (row) => openDetail(() => campaignDetail(row, openDestinationDeeper));
const search = new Search({ open: openMail, refused });
// What asks for itself: each has start(), forget() and speak().
const parts = [new Chart({ refused }), new Times({ refused }), new Campaigns({ open: openCampaign, refused }), search, new Throttles({ refused }), holds];

function holdThere(name) {
  closeDetail();
  holds.propose(name);
}

function connection(state) {
  element("connection").dataset.state = state;
  setText(element("connection"), word(state === "signed-out" ? "signed_out" : state));
}

const show = {
  connected() { connection("live"); element("gap").hidden = true; },
  lost() { connection("lost"); },
  refused,
  totals(value) { takeTotals(value); plan(); },
  destinations(rows, isSnapshot) { waiting.take(rows, isSnapshot); plan(); },
  events(list) { takeEvents(list); detailHears(list); plan(); },
  gap() { element("gap").hidden = false; element("gap").textContent = word("gap"); },
};

// Frames come ten times a second from several sources; the page is drawn once per screen refresh.
function plan() {
  if (isDrawPlanned) return;
  isDrawPlanned = true;
  requestAnimationFrame(() => {
    isDrawPlanned = false;
    if (!stream) return;
    drawTotals();
    waiting.draw();
    drawEvents(openMail);
  });
}

function enter() {
  element("sign-in").hidden = true;
  element("sign-in-error").textContent = "";
  for (const id of ["board", "sections", "sign-out"]) element(id).hidden = false;
  connection("connecting");
  speakWho();
  follow();
  for (const part of parts) part.start();
}

function follow() {
  stream?.stop();
  forgetEvents(); // The new stream begins with the newest ones.
  stream = new Stream(show);
  void stream.start();
}

function leave() {
  stream?.stop();
  stream = null;
  signOut();
  closeDetail();
  forgetTotals();
  forgetEvents();
  waiting.forget();
  for (const part of parts) part.forget();
  for (const id of ["board", "sections", "sign-out", "gap"]) element(id).hidden = true;
  element("sign-in").hidden = false;
  connection("signed-out");
  speakWho();
  document.querySelector("#sign-in-form [name=key]").focus();
}

function speakWho() {
  setText(element("who"), stream || signedIn() ? word(isOperator() ? "as_operator" : "as_account") : "");
}

function speak() {
  fillWords(document);
  element("language").textContent = word("other_language");
  element("language").lang = currentLanguage() === "de" ? "en" : "de";
  element("time-zone").textContent = word("time_zone")(timeZone());
  connection(element("connection").dataset.state);
  speakWho();
  waiting.speak();
  for (const part of parts) part.speak();
  if (!stream) return;
  drawTotals();
  speakEvents(openMail);
  // Explanations are the engine's words: they are asked for anew, here and by the stream.
  refreshDetail();
  follow();
}

element("sign-in-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const form = new FormData(submitted.target);
  element("sign-in-error").textContent = "";
  signIn(form.get("key").trim(), form.get("secret").trim());
  submitted.target.reset();
  enter();
});
element("language").addEventListener("click", () => { switchLanguage(); speak(); });
element("sign-out").addEventListener("click", leave);
setInterval(() => { if (stream) plan(); }, CLOCK_MS);

// An operator's link that is opened in a tab that has the page already changes its fragment only.
async function enterWithToken() {
  if (!hasOperatorToken()) return;
  if (stream) leave();
  try {
    await redeemOperatorToken();
    enter();
  } catch (error) {
    element("sign-in-error").textContent = error instanceof Refused ? word("bad_token") : word("no_engine");
  }
}

wireDetail();
// The panel begins below the header, which has more lines in a narrow window.
const header = document.querySelector("header");
new ResizeObserver(() => document.documentElement.style.setProperty("--header", `${header.offsetHeight}px`)).observe(header);
speak();
window.addEventListener("hashchange", () => void enterWithToken());
if (hasOperatorToken()) void enterWithToken();
else if (signedIn()) enter();

// Everything the page says, in both languages. Mail not yet taken by the receiver is
// "sent (pending)", never just "sent": other programs use that word for its opposite.

const words = {
  en: {
    skip: "Skip to content", sign_in: "Sign in", sign_out: "Sign out",
    api_key: "API key", secret_key: "Secret key",
    wrong_credentials: "This key and secret do not belong together, or the account is disabled.",
    too_many: "Too many viewers at the moment. Trying again.",
    no_engine: "The engine does not answer. Trying again.",
    other_language: "Deutsch", totals: "Right now", waiting: "Waiting, by destination",
    filter: "Show only", destination: "Destination", waiting_count: "Waiting", state: "State",
    since: "Since", last_reply: "Last reply", next_attempt: "Next attempt",
    limit: "Limit", ahead: "Mails before it", expires: "Expires",
    search_title: "Find one mail", search_label: "Address or message id", search: "Find",
    nothing_found: "No mail matches.", events: "What happens", live: "Live", lost: "Connection lost, trying again",
    connecting: "Connecting", signed_out: "Not signed in",
    pending: "sent (pending)", paused: "paused by quota", delivered: "delivered", bounced: "bounced",
    blocked: "blocked or cancelled", rate: "delivered a second", nobody_waits: "Nothing is waiting.",
    more: (n) => `and ${n} more destinations`,
    gap: "The log no longer reaches back to where this page stopped: some events are missing in the list below. The counts are right.",
    now: (m) => m.next_attempt_at ? `Next attempt: ${m.next_attempt_at}` : "This is final.",
    accepted: "accepted", to: "to", attempt: (n) => `attempt ${n}`,
    status: {
      queued: "sent (pending)", deferred: "sent (pending), will be tried again", paused: "paused by quota",
      delivered: "delivered", soft_bounced: "soft-bounced", hard_bounced: "hard-bounced",
      blocked: "blocked", cancelled: "cancelled",
    },
    states: { idle: "idle", flowing: "flowing", throttled: "throttled", unreachable: "unreachable", held: "on hold" },
    reasons: {
      unknown_user: "unknown user", mailbox_full: "mailbox full", greylisted: "greylisted", throttled: "the receiver asks for less",
      policy: "refused by policy", spam: "taken for spam", size: "too large", relay_denied: "relaying denied",
      connection: "no connection", tls: "encryption failed", dns: "no answer from DNS", no_such_domain: "no such domain",
      null_mx: "domain takes no mail", protocol: "broken dialogue", quota: "daily limit", suppressed: "address is suppressed",
      expired: "too old", outcome_unknown: "outcome unknown", other: "other",
    },
  },
  de: {
    skip: "Zum Inhalt", sign_in: "Anmelden", sign_out: "Abmelden",
    api_key: "API-Schlüssel", secret_key: "Geheimer Schlüssel",
    wrong_credentials: "Schlüssel und Geheimnis gehören nicht zusammen, oder das Konto ist gesperrt.",
    too_many: "Gerade schauen zu viele zu. Neuer Versuch läuft.",
    no_engine: "Das Programm antwortet nicht. Neuer Versuch läuft.",
    other_language: "English", totals: "Im Augenblick", waiting: "Wartend, nach Ziel",
    filter: "Nur zeigen", destination: "Ziel", waiting_count: "Wartend", state: "Zustand",
    since: "Seit", last_reply: "Letzte Antwort", next_attempt: "Nächster Versuch",
    limit: "Grenze", ahead: "Mails davor", expires: "Verfällt",
    search_title: "Eine Mail finden", search_label: "Adresse oder Nachrichten-ID", search: "Suchen",
    nothing_found: "Keine Mail passt.", events: "Was geschieht", live: "Live", lost: "Verbindung verloren, neuer Versuch läuft",
    connecting: "Verbinde", signed_out: "Nicht angemeldet",
    pending: "gesendet (ausstehend)", paused: "pausiert (Kontingent)", delivered: "zugestellt", bounced: "zurückgewiesen",
    blocked: "gesperrt oder abgebrochen", rate: "zugestellt je Sekunde", nobody_waits: "Nichts wartet.",
    more: (n) => `und ${n} weitere Ziele`,
    gap: "Das Protokoll reicht nicht bis dorthin zurück, wo diese Seite stand: In der Liste unten fehlen Ereignisse. Die Summen stimmen.",
    now: (m) => m.next_attempt_at ? `Nächster Versuch: ${m.next_attempt_at}` : "Das ist endgültig.",
    accepted: "angenommen", to: "an", attempt: (n) => `Versuch ${n}`,
    status: {
      queued: "gesendet (ausstehend)", deferred: "gesendet (ausstehend), wird wieder versucht", paused: "pausiert (Kontingent)",
      delivered: "zugestellt", soft_bounced: "soft-bounced", hard_bounced: "hard-bounced",
      blocked: "gesperrt", cancelled: "abgebrochen",
    },
    states: { idle: "ruht", flowing: "fließt", throttled: "gedrosselt", unreachable: "nicht erreichbar", held: "angehalten" },
    reasons: {
      unknown_user: "unbekannter Empfänger", mailbox_full: "Postfach voll", greylisted: "Greylisting", throttled: "der Empfänger verlangt weniger",
      policy: "nach Richtlinie abgelehnt", spam: "für Spam gehalten", size: "zu groß", relay_denied: "Weiterleitung verweigert",
      connection: "keine Verbindung", tls: "Verschlüsselung gescheitert", dns: "keine Antwort vom DNS", no_such_domain: "Domain gibt es nicht",
      null_mx: "Domain nimmt keine Mail an", protocol: "gestörter Dialog", quota: "Tageslimit", suppressed: "Adresse unterdrückt",
      expired: "zu alt", outcome_unknown: "Ausgang unbekannt", other: "anderes",
    },
  },
};

let language = navigator.languages.some((l) => l.toLowerCase().startsWith("de"))
  && !(navigator.languages[0] || "").toLowerCase().startsWith("en") ? "de" : "en";
if (sessionStorage.getItem("language")) language = sessionStorage.getItem("language");

export const word = (name) => words[language][name] ?? name;
export const wordOf = (kind, name) => words[language][kind][name] ?? name ?? "";
export const currentLanguage = () => language;

export function switchLanguage() {
  language = language === "de" ? "en" : "de";
  sessionStorage.setItem("language", language);
}

export function fillWords(root) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-word]")) {
    element.textContent = word(element.dataset.word);
  }
}

export const count = (n) => new Intl.NumberFormat(language).format(n);

export function moment(text) {
  if (!text) return "";
  const when = new Date(text);
  const sameDay = when.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(language, sameDay
    ? { hour: "2-digit", minute: "2-digit", second: "2-digit" }
    : { dateStyle: "short", timeStyle: "medium" }).format(when);
}

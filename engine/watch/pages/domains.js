// Domains as people write them: "bücher.example" for "xn--bcher-kva.example", and back. Everywhere
// else in the engine a domain is its A-labels; here it is only shown and asked for.

// RFC 3492 section 5: the parameters of Punycode for domains.
const [BASE, T_MIN, T_MAX, SKEW, DAMP, BIAS, FIRST] = [36, 1, 26, 38, 700, 72, 128];
const DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789";
// What a label may become: letters, marks and digits with hyphens. Nothing that turns the direction
// of the text around it or cannot be seen.
const READABLE = /^[\p{L}\p{M}\p{N}-]+$/u;

// A domain with its international labels readable; a label that is none stays as it is.
export const readableDomain = (domain) => (domain.includes("xn--") ? domain.split(".").map(readableLabel).join(".") : domain);

// The A-labels of what somebody typed, or the text itself if it is no domain.
export function asciiDomain(text) {
  // The browser knows the rules (UTS 46); a host that cannot be one leaves the address as it was.
  const address = new URL(location.origin);
  const none = address.hostname = "none.invalid";
  if (/^[^\s/:?#@\\]+$/.test(text)) address.hostname = text;
  return address.hostname === none ? text.toLowerCase() : address.hostname;
}

function readableLabel(label) {
  if (!label.startsWith("xn--")) return label;
  try {
    const decoded = decode(label.slice(4));
    // A label that says it is international and is not, or is not written as it would be, is a trick.
    return READABLE.test(decoded) && asciiDomain(decoded) === label ? decoded : label;
  } catch { return label; }
}

// RFC 3492 section 6.2. Raises RangeError for what is no Punycode.
function decode(text) {
  const plain = text.lastIndexOf("-");
  const points = plain > 0 ? [...text.slice(0, plain)].map((each) => each.codePointAt(0)) : [];
  let [point, bias, place] = [FIRST, BIAS, 0];
  for (let at = plain > 0 ? plain + 1 : 0; at < text.length;) {
    const before = place;
    let weight = 1;
    for (let k = BASE; ; k += BASE) {
      const digit = DIGITS.indexOf(text[at++] ?? "?");
      if (digit < 0) throw new RangeError("no Punycode");
      place += digit * weight;
      const threshold = Math.min(Math.max(k - bias, T_MIN), T_MAX);
      if (digit < threshold) break;
      weight *= BASE - threshold;
    }
    const length = points.length + 1;
    bias = adapted(place - before, length, before === 0);
    point += Math.floor(place / length);
    place %= length;
    points.splice(place++, 0, point);
  }
  return String.fromCodePoint(...points);
}

// RFC 3492 section 6.1.
function adapted(delta, length, isFirst) {
  delta = Math.floor(delta / (isFirst ? DAMP : 2));
  delta += Math.floor(delta / length);
  let k = 0;
  for (; delta > Math.floor(((BASE - T_MIN) * T_MAX) / 2); k += BASE) delta = Math.floor(delta / (BASE - T_MIN));
  return k + Math.floor(((BASE - T_MIN + 1) * delta) / (delta + SKEW));
}

import { limits } from '../limits.js';

/** What is read of a certificate that TLS has verified: as node:tls gives it. */
export interface PeerNames {
  readonly subject?: { readonly CN?: string | readonly string[] | undefined } | undefined;
  /** `URI:spiffe://desk/trader, DNS:trader.example` */
  readonly subjectaltname?: string | undefined;
}

/** A name with a scheme: no host name has a colon, and no scheme an equals sign. */
const URI = /^[a-z][a-z0-9+.-]*:[^\s]+$/i;
const HOST = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;
const VISIBLE = /^[\x21-\x7e]+$/;

/**
 * Whom a verified certificate is for: its URI names, then its DNS names, then `CN=` and its common name. The three
 * cannot be taken for each other, whatever an authority lets somebody write into one of them.
 */
export function certificateIdentities({ subject, subjectaltname = '' }: PeerNames): string[] {
  const names = alternativeNames(subjectaltname);
  const common = typeof subject?.CN === 'string' && subject.CN !== '' ? [`CN=${subject.CN}`] : [];
  const all = [...of(names, 'URI:', URI), ...of(names, 'DNS:', HOST).map((name) => name.toLowerCase()), ...common];
  return [...new Set(all)].filter((name) => VISIBLE.test(name) && name.length <= limits.certificateIdentity);
}

/** An identity as it is compared; undefined for what no certificate can have. */
export function normalIdentity(text: string): string | undefined {
  if (!VISIBLE.test(text) || text.length > limits.certificateIdentity) return undefined;
  if (/^CN=./.test(text) || URI.test(text)) return text;
  return HOST.test(text) ? text.toLowerCase() : undefined;
}

const of = (names: readonly string[], type: string, shape: RegExp) =>
  names
    .filter((name) => name.startsWith(type))
    .map((name) => name.slice(type.length))
    .filter((name) => shape.test(name));

/** An entry as Node writes it: a name that holds a comma, a quote or worse stands as a JSON string (CVE-2021-44532). */
const ENTRY = /(?:[^",]|"(?:[^"\\]|\\.)*")+(?:, |$)/y;

/**
 * The entries that stand there without quotes: no name that needs them is one that we take. A text that is not made of
 * entries to its end has none.
 */
function alternativeNames(text: string): string[] {
  const names: string[] = [];
  ENTRY.lastIndex = 0;
  while (ENTRY.lastIndex < text.length) {
    const [entry] = ENTRY.exec(text) ?? [];
    if (entry === undefined) return [];
    if (!entry.includes('"')) names.push(entry.replace(/, $/, ''));
  }
  return names;
}

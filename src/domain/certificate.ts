import { limits } from '../limits.js';

/** The fields of a verified certificate that are read, as node:tls returns them. */
export interface PeerNames {
  readonly subject?: { readonly CN?: string | readonly string[] | undefined } | undefined;
  /** `URI:spiffe://desk/trader, DNS:trader.example` */
  readonly subjectaltname?: string | undefined;
}

/**
 * A name with a scheme. Host names contain no colon and schemes no equals sign, so the kinds of names cannot overlap.
 */
const URI = /^[a-z][a-z0-9+.-]*:[^\s]+$/i;
const HOST = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;
const VISIBLE = /^[\x21-\x7e]+$/;

/**
 * The identities of a verified certificate: its URI names, then its DNS names, then `CN=` with its common name. A name
 * of one kind cannot be mistaken for one of another kind, whatever text the certificate authority permits in it.
 */
export function certificateIdentities({ subject, subjectaltname = '' }: PeerNames): string[] {
  const names = alternativeNames(subjectaltname);
  const common = typeof subject?.CN === 'string' && subject.CN !== '' ? [`CN=${subject.CN}`] : [];
  const all = [
    ...namesOf(names, 'URI:', URI),
    ...namesOf(names, 'DNS:', HOST).map((name) => name.toLowerCase()),
    ...common,
  ];
  return [...new Set(all)].filter((name) => VISIBLE.test(name) && name.length <= limits.certificateIdentity);
}

/** The form of an identity that is compared; undefined for text that cannot be an identity. */
export function normalIdentity(text: string): string | undefined {
  if (!VISIBLE.test(text) || text.length > limits.certificateIdentity) return undefined;
  if (/^CN=./.test(text) || URI.test(text)) return text;
  return HOST.test(text) ? text.toLowerCase() : undefined;
}

const namesOf = (names: readonly string[], type: string, shape: RegExp) =>
  names
    .filter((name) => name.startsWith(type))
    .map((name) => name.slice(type.length))
    .filter((name) => shape.test(name));

/**
 * An entry as Node writes it. A name with a special character, such as a comma or a quote, is written as a JSON string
 * (CVE-2021-44532).
 */
const ENTRY = /(?:[^",]|"(?:[^"\\]|\\.)*")+(?:, |$)/y;

/**
 * The entries without quotes; a name that needs quotes is never a valid identity. The result is empty if any part of
 * the text is not an entry.
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

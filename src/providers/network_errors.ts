import type { CheckOutcome, CheckResult } from './check_outcomes.js';

/** The outcomes for the codes of a failed request: those of Node, of OpenSSL and of egress.ts. */
const OUTCOMES: ReadonlyMap<string, CheckOutcome> = new Map<string, CheckOutcome>([
  ['URL_REFUSED', 'URL_REFUSED'],
  ['ADDRESS_REFUSED', 'ADDRESS_REFUSED'],
  ['TIMED_OUT', 'TIMED_OUT'],
  ['NO_SLOT', 'BUSY'],
  ['STOPPED', 'STOPPED'],
  ['ENOTFOUND', 'NAME_UNKNOWN'],
  ['EAI_AGAIN', 'NO_NAME_SERVICE'],
  ['EAI_FAIL', 'NO_NAME_SERVICE'],
  ['ECONNREFUSED', 'REFUSES_CONNECTIONS'],
  ['ECONNRESET', 'BROKE_CONNECTION'],
  ['ECONNABORTED', 'BROKE_CONNECTION'],
  ['EPIPE', 'BROKE_CONNECTION'],
  ['ETIMEDOUT', 'NO_WAY'],
  ['EHOSTUNREACH', 'NO_WAY'],
  ['EHOSTDOWN', 'NO_WAY'],
  ['ENETUNREACH', 'NO_WAY'],
  ['ENETDOWN', 'NO_WAY'],
  ['EADDRNOTAVAIL', 'NO_WAY'],
  ['EACCES', 'NO_WAY'],
  ['EPERM', 'NO_WAY'],
  ['CERT_HAS_EXPIRED', 'CERTIFICATE_EXPIRED'],
  ['CERT_NOT_YET_VALID', 'CERTIFICATE_EXPIRED'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'CERTIFICATE_OF_ANOTHER'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'CERTIFICATE_UNTRUSTED'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'CERTIFICATE_UNTRUSTED'],
  ['UNABLE_TO_GET_ISSUER_CERT', 'CERTIFICATE_UNTRUSTED'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'CERTIFICATE_UNTRUSTED'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'CERTIFICATE_UNTRUSTED'],
  ['CERT_UNTRUSTED', 'CERTIFICATE_UNTRUSTED'],
  ['EPROTO', 'NO_TLS'],
  ['SWITCHES_PROTOCOL', 'NOT_HTTP'],
]);

/** The outcome of a failed request. An error for several addresses has the code of the first one. */
export function networkResult(error: unknown): CheckResult {
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code !== 'string') return { outcome: 'UNREACHABLE' };
  if (code.startsWith('HPE_')) return { outcome: 'NOT_HTTP' };
  if (/^ERR_(SSL|TLS)_|^CERT_/.test(code) && !OUTCOMES.has(code)) return { outcome: 'NO_TLS' };
  return { outcome: OUTCOMES.get(code) ?? 'UNREACHABLE' };
}

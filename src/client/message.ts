import type { ServiceError as GrpcError } from '@grpc/grpc-js';
import { proxyProblem } from './proxy.js';

/** In clear, with TLS, or with a certificate of this side too. */
export type Security = 'clear' | 'tls' | 'mutual';

/** What is known of a failed call beside the error. */
export interface About {
  readonly requestId?: string | undefined;
  readonly unsent?: boolean | undefined;
  /** Where the service was looked for. */
  readonly address?: string | undefined;
  /** How the connection is secured. */
  readonly security?: Security | undefined;
  /** How long the call could take. */
  readonly deadlineMs?: number | undefined;
  /** What grpc-js says of the connection, when the time was over. */
  readonly lastFailure?: GrpcError | undefined;
}

const NO_CONNECTION = /^No connection established\. Last error: (?:Error: )?/;
/** What grpc-js itself says when the time is over; the service uses other words. */
const TOO_LATE = /^Deadline exceeded(?: after ([\d.]+)s)?\b/;

/** The words of grpc-js as a sentence: without its numbers, its empty remarks and those of OpenSSL. */
export function messageOf(
  { details = '' }: GrpcError,
  { address, deadlineMs, lastFailure, security = 'clear' }: About = {},
): string {
  const where = address ?? 'the address';
  const [late, seconds] = TOO_LATE.exec(details) ?? [];
  if (late) {
    const within = deadlineMs ?? Math.round(Number(seconds) * 1000);
    const after = lastFailure ? `; last failure: ${reasonOf(lastFailure.details, where, security)}` : '';
    return `No answer${address ? ` from ${address}` : ''} within ${within} ms${after}`;
  }
  if (NO_CONNECTION.test(details)) return `No connection to the service: ${reasonOf(details, where, security)}`;
  return /^Received HTTP status code \d+/.test(details) ? noService(where) : withoutNote(details);
}

/** Why there is no connection. */
function reasonOf(details: string, where: string, security: Security): string {
  const said = withoutNote(details).replace(NO_CONNECTION, '').replace(AT, '');
  // grpc-js rejects without a reason when a proxy fails, and only then.
  if (said === 'undefined') return proxyProblem(where);
  if (/^Protocol error\b/.test(said)) return noService(where);
  if (CUT_OFF.test(said)) return cutOff(said, where, security);
  const [, openssl] = /:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):/i.exec(said) ?? [];
  if (openssl === undefined) return certificateProblem(said) ?? said;
  const isNoTls = /wrong version number|packet length too long|unknown protocol|http request/.test(openssl);
  return isNoTls ? `what listens at ${where} does not speak TLS; leave tls out` : refusedCertificate(openssl);
}

/** What grpc-js adds to what a connection ended with. */
const AT = / \(\d{4}-\d\d-\d\dT[\d:.]+Z\)$/;
const CUT_OFF =
  /^(Failed to connect$|read ECONNRESET|write (EPIPE|ECONNRESET)|socket hang up|Client network socket disc)/;

/** Whoever does not like a certificate often says so only by going away. */
function cutOff(said: string, where: string, security: Security): string {
  if (security === 'mutual') return `${where} broke it off (${said}); does it trust the certificate of this client?`;
  if (security === 'tls') return `${where} broke it off (${said}); a certificate of this client may be wanted: ${OWN}`;
  return said === 'Failed to connect' ? `${where} broke it off; it may want TLS: give tls` : said;
}

const OWN = 'give tls.cert and tls.key';

/** What Node finds wrong with the certificate of the service. */
function certificateProblem(said: string): string | undefined {
  if (/self-signed certificate|unable to (verify|get)\b.*(certificate|issuer)/.test(said))
    return `the certificate of the service is not trusted (${said}); give the authority that signed it as tls.ca`;
  if (said.startsWith('certificate has expired'))
    return 'the certificate of the service has expired; it needs a new one';
  if (said.startsWith('certificate is not yet valid'))
    return 'the certificate of the service is not valid yet; are the clocks right?';
  const [, names] =
    /ERR_TLS_CERT_ALTNAME_INVALID\]: Hostname\/IP does not match certificate's altnames: (.*)$/s.exec(said) ?? [];
  return names && `the certificate of the service is for another name (${names}); tls.serverName says which`;
}

/** What the service finds wrong with ours. */
function refusedCertificate(alert: string): string {
  if (/alert certificate required/.test(alert)) return `the service wants a certificate of this client; ${OWN}`;
  const isOurs = /alert (unknown ca|bad certificate|certificate \w+|unsupported certificate)/.test(alert);
  return isOurs ? `the service does not take the certificate of this client (${alert})` : alert;
}

const noService = (where: string) => `what listens at ${where} is no gRPC service; is it the HTTP port?`;

const withoutNote = (details: string) =>
  details.replace(/\.?\s*Resolution note:\s*(.*)$/s, (_, note: string) => note && `; ${note}`).trim();

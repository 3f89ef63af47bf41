import type { ServiceError as GrpcError } from '@grpc/grpc-js';
import { proxyProblem } from './proxy.js';

/** Plaintext, TLS, or TLS with a client certificate. */
export type Security = 'plaintext' | 'tls' | 'mutual';

/** What is known about a failed call in addition to the error. */
export interface About {
  readonly requestId?: string | undefined;
  readonly unsent?: boolean | undefined;
  readonly address?: string | undefined;
  readonly security?: Security | undefined;
  /** The time limit of the call. */
  readonly deadlineMs?: number | undefined;
  /** The last connection failure of grpc-js, if the deadline has passed. */
  readonly lastFailure?: GrpcError | undefined;
}

const NO_CONNECTION = /^No connection established\. Last error: (?:Error: )?/;
/** The message of grpc-js for an exceeded deadline; the messages of the service differ. */
const DEADLINE_EXCEEDED = /^Deadline exceeded(?: after ([\d.]+)s)?\b/;

/** Rewrites a message of grpc-js as a sentence, without status numbers, empty notes and OpenSSL codes. */
export function messageOf(
  { details = '' }: GrpcError,
  { address, deadlineMs, lastFailure, security = 'plaintext' }: About = {},
): string {
  const where = address ?? 'the address';
  const [late, seconds] = DEADLINE_EXCEEDED.exec(details) ?? [];
  if (late) {
    const within = deadlineMs ?? Math.round(Number(seconds) * 1000);
    const after = lastFailure ? `; last failure: ${reasonOf(lastFailure.details, where, security)}` : '';
    return `No response${address ? ` from ${address}` : ''} within ${within} ms${after}`;
  }
  if (NO_CONNECTION.test(details)) return `No connection to the service: ${reasonOf(details, where, security)}`;
  return /^Received HTTP status code \d+/.test(details) ? noService(where) : withoutNote(details);
}

/** Why there is no connection. */
function reasonOf(details: string, where: string, security: Security): string {
  const text = withoutNote(details).replace(NO_CONNECTION, '').replace(TIMESTAMP, '');
  // grpc-js rejects without a reason when a proxy fails, and only then.
  if (text === 'undefined') return proxyProblem(where);
  if (/^Protocol error\b/.test(text)) return noService(where);
  if (DISCONNECTED.test(text)) return disconnected(text, where, security);
  const [, openssl] = /:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):/i.exec(text) ?? [];
  if (openssl === undefined) return certificateProblem(text) ?? text;
  const isNoTls = /wrong version number|packet length too long|unknown protocol|http request/.test(openssl);
  return isNoTls ? `what listens at ${where} does not speak TLS; leave tls out` : rejectedCertificate(openssl);
}

/** The time that grpc-js appends to a connection failure. */
const TIMESTAMP = / \(\d{4}-\d\d-\d\dT[\d:.]+Z\)$/;
const DISCONNECTED =
  /^(Failed to connect$|read ECONNRESET|write (EPIPE|ECONNRESET)|socket hang up|Client network socket disc)/;

/** A server that rejects a certificate often only closes the connection. */
function disconnected(text: string, where: string, security: Security): string {
  const closed = `${where} closed the connection`;
  if (security === 'mutual') return `${closed} (${text}); does it trust the certificate of this client?`;
  if (security === 'tls') return `${closed} (${text}); it may require a client certificate: ${CLIENT_CERTIFICATE}`;
  return text === 'Failed to connect' ? `${closed}; it may require TLS: set tls` : text;
}

const CLIENT_CERTIFICATE = 'set tls.cert and tls.key';

/** Translates what Node reports about the certificate of the service. */
function certificateProblem(text: string): string | undefined {
  if (/self-signed certificate|unable to (verify|get)\b.*(certificate|issuer)/.test(text))
    return `the certificate of the service is not trusted (${text}); set tls.ca to the authority that signed it`;
  if (text.startsWith('certificate has expired'))
    return 'the certificate of the service has expired; it needs a new one';
  if (text.startsWith('certificate is not yet valid'))
    return 'the certificate of the service is not valid yet; check the clocks';
  const [, names] =
    /ERR_TLS_CERT_ALTNAME_INVALID\]: Hostname\/IP does not match certificate's altnames: (.*)$/s.exec(text) ?? [];
  return names && `the certificate of the service is for another name (${names}); set tls.serverName to its name`;
}

/** Translates the TLS alert with which the service rejects the certificate of this client. */
function rejectedCertificate(alert: string): string {
  if (/alert certificate required/.test(alert))
    return `the service requires a client certificate; ${CLIENT_CERTIFICATE}`;
  const isClients = /alert (unknown ca|bad certificate|certificate \w+|unsupported certificate)/.test(alert);
  return isClients ? `the service rejects the certificate of this client (${alert})` : alert;
}

const noService = (where: string) => `what listens at ${where} is no gRPC service; is it the HTTP port?`;

const withoutNote = (details: string) =>
  details.replace(/\.?\s*Resolution note:\s*(.*)$/s, (_, note: string) => note && `; ${note}`).trim();

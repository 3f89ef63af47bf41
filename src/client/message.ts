import type { ServiceError as GrpcError } from '@grpc/grpc-js';

/** What is known of a failed call beside the error. */
export interface About {
  readonly requestId?: string | undefined;
  readonly unsent?: boolean | undefined;
  /** Where the service was looked for. */
  readonly address?: string | undefined;
  /** How long the call could take. */
  readonly deadlineMs?: number | undefined;
  /** What grpc-js says of the connection, when the time was over. */
  readonly lastFailure?: GrpcError | undefined;
}

const NO_CONNECTION = /^No connection established\. Last error: (?:Error: )?/;
/** What grpc-js itself says when the time is over; the service uses other words. */
const TOO_LATE = /^Deadline exceeded(?: after ([\d.]+)s)?\b/;

/** The words of grpc-js as a sentence: without its numbers, its empty remarks and those of OpenSSL. */
export function messageOf({ details = '' }: GrpcError, { address, deadlineMs, lastFailure }: About = {}): string {
  const where = address ?? 'the address';
  const [late, seconds] = TOO_LATE.exec(details) ?? [];
  if (late) {
    const within = deadlineMs ?? Math.round(Number(seconds) * 1000);
    const after = lastFailure ? `; last failure: ${reasonOf(lastFailure.details, where)}` : '';
    return `No answer${address ? ` from ${address}` : ''} within ${within} ms${after}`;
  }
  if (NO_CONNECTION.test(details)) return `No connection to the service: ${reasonOf(details, where)}`;
  return /^Received HTTP status code \d+/.test(details) ? noService(where) : withoutNote(details);
}

/** Why there is no connection. */
function reasonOf(details: string, where: string): string {
  const said = withoutNote(details).replace(NO_CONNECTION, '');
  if (/^Protocol error\b/.test(said)) return noService(where);
  const [, openssl] = /:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):/i.exec(said) ?? [];
  if (openssl === undefined) return said;
  const isNoTls = /wrong version number|packet length too long|unknown protocol|http request/.test(openssl);
  return isNoTls ? `what listens at ${where} does not speak TLS; leave tls out` : openssl;
}

const noService = (where: string) => `what listens at ${where} is no gRPC service; is it the HTTP port?`;

const withoutNote = (details: string) =>
  details.replace(/\.?\s*Resolution note:\s*(.*)$/s, (_, note: string) => note && `; ${note}`).trim();

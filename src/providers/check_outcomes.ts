import type { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { printable } from '../domain/text.js';
import { limits } from '../limits.js';

/** The values that a message can contain. Only numbers and the name of a model come from a provider. */
export interface OutcomeDetails {
  readonly provider: string;
  /** Whether a key was sent. */
  readonly keyed: boolean;
  /** The environment variables that can contain the key, as text. */
  readonly variables: string;
  /** Whether the provider is built in. The variables of other providers must be listed in PROVIDER_ALLOW_KEY_VARS. */
  readonly builtIn: boolean;
  readonly timeoutMs: number;
  readonly model: string;
  /** The listed model name that is nearest to the missing one; empty: none is near. */
  readonly nearest: string;
  readonly http?: number;
  readonly waitMs?: number;
}

interface Entry {
  readonly status: CheckStatus;
  readonly sentence: (words: OutcomeDetails) => string;
}
const entry = (status: CheckStatus, sentence: Entry['sentence']): Entry => ({ status, sentence });

const seconds = (ms: number) => `${Math.ceil(ms / 1000)} s`;

/** All outcomes of a check, with their status and message. */
export const checkOutcomes = {
  KEY_OK: entry('CHECK_STATUS_OK', (w) =>
    w.keyed ? `${w.provider} accepted the key` : `${w.provider} requires no key`,
  ),
  MODEL_OK: entry(
    'CHECK_STATUS_OK',
    (w) => `${w.provider} ${w.keyed ? 'accepted the key and ' : ''}has the model ${w.model}`,
  ),
  MODEL_MISSING: entry(
    'CHECK_STATUS_MODEL_MISSING',
    (w) =>
      `${w.provider} ${w.keyed ? 'accepted the key and ' : ''}does not have the model ${w.model}` +
      (w.nearest ? `; did you mean ${w.nearest}?` : '; choose one of its models'),
  ),

  KEY_REJECTED: entry(
    'CHECK_STATUS_INVALID',
    (w) => `${w.provider} rejected the key; replace it: it is wrong, expired or revoked`,
  ),
  KEY_NOT_SENDABLE: entry(
    'CHECK_STATUS_INVALID',
    (w) => `The key was not sent to ${w.provider}; enter it again: it must be visible ASCII characters, without spaces`,
  ),
  KEY_BLOCKED: entry(
    'CHECK_STATUS_INVALID',
    (w) => `${w.provider} has blocked the key; replace it, or ask ${w.provider} why`,
  ),
  KEY_DISABLED: entry(
    'CHECK_STATUS_INVALID',
    (w) => `The key is disabled at ${w.provider}; enable it in the console of ${w.provider}, or replace it`,
  ),
  TEAM_BLOCKED: entry(
    'CHECK_STATUS_INVALID',
    (w) => `${w.provider} has blocked the team that owns the key; ask ${w.provider} why, or use a key of another team`,
  ),
  NO_KEY: entry(
    'CHECK_STATUS_NO_KEY',
    (w) =>
      `${w.provider} was not contacted, because no key is set; set an API key for the config, or set ${w.variables} for the service` +
      (w.builtIn ? '' : ' and list it in PROVIDER_ALLOW_KEY_VARS'),
  ),
  KEY_REQUIRED: entry(
    'CHECK_STATUS_NO_KEY',
    (w) => `${w.provider} requires a key and none is set; set an API key for the config`,
  ),
  FORBIDDEN: entry(
    'CHECK_STATUS_FORBIDDEN',
    (w) =>
      `${w.provider} does not permit this key to read its models; calls may work: permit the key to read models to have it checked`,
  ),
  NO_CREDIT: entry(
    'CHECK_STATUS_NO_CREDIT',
    (w) => `The account of the key has no credit left at ${w.provider}; add credit, or raise its spending limit`,
  ),
  RATE_LIMITED: entry(
    'CHECK_STATUS_RATE_LIMITED',
    (w) => `${w.provider} received too many requests; check again ${w.waitMs ? `after ${seconds(w.waitMs)}` : 'later'}`,
  ),

  NO_LIST: entry(
    'CHECK_STATUS_UNSUPPORTED',
    (w) => `${w.provider} has no model list (HTTP ${w.http}), so nothing is known; check that its base_url is right`,
  ),
  NO_DIALECT: entry(
    'CHECK_STATUS_UNSUPPORTED',
    (w) => `${w.provider} was not contacted, because its dialect is not known; set it in the catalogue`,
  ),
  REDIRECT: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} responded with a redirect (HTTP ${w.http}), which is not followed; set its base_url to the new address`,
  ),
  SERVER_ERROR: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) => `${w.provider} has an internal error (HTTP ${w.http}); check again later, or see its status page`,
  ),
  REQUEST_REJECTED: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} rejected the request (HTTP ${w.http}), not the key; check that its base_url and dialect are right`,
  ),
  ERROR_INSIDE: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} responded with an error instead of its models; check again later, and that its base_url is right`,
  ),
  NOT_A_LIST: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} responded with something that is not a model list; check that its base_url and dialect are right`,
  ),
  TOO_LARGE: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} responded with more than ${limits.providerResponseBytes / 1024 ** 2} MiB; check that its base_url is right`,
  ),
  COMPRESSED: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} sent a compressed response, which was not requested; configure it, or the proxy in front of it, not to compress`,
  ),
  NOT_HTTP: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) => `${w.provider} responded with something that is not HTTP; check the scheme and port of its base_url`,
  ),

  URL_REFUSED: entry(
    'CHECK_STATUS_ADDRESS_REFUSED',
    (w) =>
      `${w.provider} was not contacted, because its base_url may not be used; it must be https to a public address, or lead to one that PROVIDER_ALLOW_CIDRS allows`,
  ),
  ADDRESS_REFUSED: entry(
    'CHECK_STATUS_ADDRESS_REFUSED',
    (w) =>
      `${w.provider} was not contacted, because the name in its base_url resolves to an address that may not be used; loopback, link-local and private addresses, and http, need PROVIDER_ALLOW_CIDRS`,
  ),

  NAME_UNKNOWN: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The name in the base_url of ${w.provider} is not known; check its spelling, and the DNS of this machine`,
  ),
  NO_NAME_SERVICE: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `The name in the base_url of ${w.provider} could not be looked up; check the DNS and network of this machine`,
  ),
  REFUSES_CONNECTIONS: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `${w.provider} refuses connections; check that it is running, and the port of its base_url`,
  ),
  BROKE_CONNECTION: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `${w.provider} closed the connection; check again, then the firewall and the scheme and port of its base_url`,
  ),
  NO_WAY: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `There is no network route to ${w.provider}; check the network, firewall and routes of this machine`,
  ),
  CERTIFICATE_EXPIRED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The certificate of ${w.provider} is not valid today; have it renewed, and check the clock of this machine`,
  ),
  CERTIFICATE_UNTRUSTED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `The certificate of ${w.provider} is not trusted by this service; to trust its authority, start the service with NODE_EXTRA_CA_CERTS`,
  ),
  CERTIFICATE_OF_ANOTHER: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The certificate of ${w.provider} is for another name; check the host name in its base_url`,
  ),
  NO_TLS: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `No TLS connection to ${w.provider} could be established; check the scheme and port of its base_url`,
  ),
  TIMED_OUT: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `${w.provider} did not respond within ${w.timeoutMs} ms; check again, then its base_url, its status page and the firewall`,
  ),
  BUSY: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `The request to ${w.provider} was not sent in time, because it waited for other checks of this service for most of ${w.timeoutMs} ms; check again later`,
  ),
  STOPPED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The check of ${w.provider} was stopped before a response arrived; check again`,
  ),
  UNREACHABLE: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `${w.provider} could not be reached; check its base_url and the network of this machine`,
  ),
} satisfies Record<string, Entry>;

export type CheckOutcome = keyof typeof checkOutcomes;

/** The result of a check, before it is converted to a message. */
export interface CheckResult {
  readonly outcome: CheckOutcome;
  /** The HTTP status. */
  readonly http?: number;
  /** How long the provider requests to wait, in ms. */
  readonly waitMs?: number;
}

export const statusOf = ({ outcome }: CheckResult): CheckStatus => checkOutcomes[outcome].status;

/** The message of a result. */
export const messageOf = ({ outcome, http, waitMs }: CheckResult, words: OutcomeDetails): string =>
  printable(checkOutcomes[outcome].sentence({ ...words, http, waitMs }), limits.providerMessage);

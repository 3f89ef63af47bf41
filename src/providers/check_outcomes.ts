import type { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { printable } from '../domain/text.js';
import { limits } from '../limits.js';

/** What a sentence can speak of. Nothing in it comes from a provider but numbers and the name of a model. */
export interface OutcomeDetails {
  readonly provider: string;
  /** Whether a key was sent. */
  readonly keyed: boolean;
  /** The environment variables that can hold the key, as the service asks for them. */
  readonly variables: string;
  /** Whether those may be sent without more ado: of other providers PROVIDER_ALLOW_KEY_VARS must list them. */
  readonly builtIn: boolean;
  readonly timeoutMs: number;
  readonly model: string;
  /** The model's name that is nearest to the one that is missing; empty: none is near. */
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

/** Everything that can come of asking a provider, with its status and its sentence. */
export const checkOutcomes = {
  KEY_OK: entry('CHECK_STATUS_OK', (w) => (w.keyed ? `${w.provider} took the key` : `${w.provider} wants no key`)),
  MODEL_OK: entry(
    'CHECK_STATUS_OK',
    (w) => `${w.provider} ${w.keyed ? 'took the key and ' : ''}has the model ${w.model}`,
  ),
  MODEL_MISSING: entry(
    'CHECK_STATUS_MODEL_MISSING',
    (w) =>
      `${w.provider} ${w.keyed ? 'took the key and ' : ''}does not have the model ${w.model}` +
      (w.nearest ? `; did you mean ${w.nearest}?` : '; choose one of its models'),
  ),

  KEY_REFUSED: entry(
    'CHECK_STATUS_INVALID',
    (w) => `${w.provider} refused the key; replace it: it is wrong, expired or revoked`,
  ),
  KEY_UNSENDABLE: entry(
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
      `${w.provider} was not asked, because no key is set; give the configuration one, or set ${w.variables} for the service` +
      (w.builtIn ? '' : ' and list it in PROVIDER_ALLOW_KEY_VARS'),
  ),
  KEY_WANTED: entry(
    'CHECK_STATUS_NO_KEY',
    (w) => `${w.provider} wants a key and none is set; give the configuration one`,
  ),
  FORBIDDEN: entry(
    'CHECK_STATUS_FORBIDDEN',
    (w) =>
      `${w.provider} does not let this key read its models; calls may work: let the key read models to have it checked`,
  ),
  NO_CREDIT: entry(
    'CHECK_STATUS_NO_CREDIT',
    (w) => `The account of the key has nothing left to spend at ${w.provider}; add credit, or raise its spending limit`,
  ),
  RATE_LIMITED: entry(
    'CHECK_STATUS_RATE_LIMITED',
    (w) => `${w.provider} has had too many requests; check again ${w.waitMs ? `after ${seconds(w.waitMs)}` : 'later'}`,
  ),

  NO_LIST: entry(
    'CHECK_STATUS_UNSUPPORTED',
    (w) => `${w.provider} has no model list (HTTP ${w.http}), so nothing is known; check that its base_url is right`,
  ),
  NO_DIALECT: entry(
    'CHECK_STATUS_UNSUPPORTED',
    (w) => `${w.provider} was not asked, because its dialect is not known; set it in the catalogue`,
  ),
  REDIRECT: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} answered with a redirect (HTTP ${w.http}), which is not followed; set its base_url to the new place`,
  ),
  SERVER_ERROR: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) => `${w.provider} has a problem of its own (HTTP ${w.http}); check again later, or see its status page`,
  ),
  REQUEST_REFUSED: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} refused the question (HTTP ${w.http}), not the key; check that its base_url and dialect are right`,
  ),
  ERROR_INSIDE: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} answered with an error in place of its models; check again later, and that its base_url is right`,
  ),
  NOT_A_LIST: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) => `${w.provider} answered with something that is no model list; check that its base_url and dialect are right`,
  ),
  TOO_LARGE: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} answered with more than ${limits.providerAnswerBytes / 1024 ** 2} MiB; check that its base_url is right`,
  ),
  COMPRESSED: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) =>
      `${w.provider} answered compressed, which was not asked for; let it, or the proxy before it, answer as it is asked`,
  ),
  NOT_HTTP: entry(
    'CHECK_STATUS_PROVIDER_ERROR',
    (w) => `${w.provider} answered with something that is no HTTP; check the scheme and port of its base_url`,
  ),

  URL_REFUSED: entry(
    'CHECK_STATUS_ADDRESS_REFUSED',
    (w) =>
      `${w.provider} was not asked, because its base_url may not be used; it must be https to a public address, or lead to one that PROVIDER_ALLOW_CIDRS allows`,
  ),
  ADDRESS_REFUSED: entry(
    'CHECK_STATUS_ADDRESS_REFUSED',
    (w) =>
      `${w.provider} was not asked, because the name in its base_url resolves to an address that may not be used; loopback, link-local and private addresses, and all addresses over http, need PROVIDER_ALLOW_CIDRS`,
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
    (w) => `${w.provider} broke the connection; check again, then the firewall and the scheme and port of its base_url`,
  ),
  NO_WAY: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `There is no way through the network to ${w.provider}; check the network, firewall and routes of this machine`,
  ),
  CERTIFICATE_EXPIRED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The certificate of ${w.provider} is not valid today; have it renewed, and check the clock of this machine`,
  ),
  CERTIFICATE_UNTRUSTED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `The certificate of ${w.provider} is from nobody that this service trusts; if it should, start it with NODE_EXTRA_CA_CERTS`,
  ),
  CERTIFICATE_OF_ANOTHER: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The certificate of ${w.provider} is for another name; check the host name in its base_url`,
  ),
  NO_TLS: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `No secure connection to ${w.provider} came about; check the scheme and port of its base_url`,
  ),
  TIMED_OUT: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `${w.provider} did not answer within ${w.timeoutMs} ms; check again, then its base_url, its status page and the firewall`,
  ),
  BUSY: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) =>
      `The turn of ${w.provider} did not come in time, because this service was busy asking others for most of ${w.timeoutMs} ms; check again later`,
  ),
  STOPPED: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `The check of ${w.provider} was stopped before it answered; check again`,
  ),
  UNREACHABLE: entry(
    'CHECK_STATUS_UNREACHABLE',
    (w) => `${w.provider} could not be reached; check its base_url and the network of this machine`,
  ),
} satisfies Record<string, Entry>;

export type CheckOutcome = keyof typeof checkOutcomes;

/** What came of asking, before it is put into words. */
export interface Finding {
  readonly verdict: CheckOutcome;
  /** The HTTP status. */
  readonly http?: number;
  /** How long the provider asks to wait. */
  readonly waitMs?: number;
}

export const statusOf = ({ verdict }: Finding): CheckStatus => checkOutcomes[verdict].status;

/** The sentence of a finding. */
export const messageOf = ({ verdict, http, waitMs }: Finding, words: OutcomeDetails): string =>
  printable(checkOutcomes[verdict].sentence({ ...words, http, waitMs }), limits.providerMessage);

import type { ChannelOptions } from '@grpc/grpc-js';
import type { ReservationOptions } from './budgets/budget_leases.js';
import type { TlsOptions } from './channel.js';
import type { Token } from './headers.js';
import type { CacheOptions } from './snapshot_cache.js';
import type { UsageOptions } from './usage/usage_options.js';

/** Options of a connection to the service. */
export interface ConnectOptions {
  /**
   * `host:port`, or any target that gRPC can resolve (`dns:///…`, `unix:…`). Default: the environment variable
   * AGENTLLM_ADDRESS, else 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /**
   * Encrypts the connection with TLS. `true` trusts the certificate authorities of the system; an object sets others,
   * or a client certificate. Default: false, for a service on the same machine.
   */
  readonly tls?: boolean | TlsOptions | undefined;
  /**
   * The access token, sent as `authorization: Bearer …`. A function is called for each call; if it fails, the call fails
   * with code UNAUTHENTICATED. An empty string sends no token. Default: the environment variable AGENTLLM_TOKEN, else no
   * token.
   */
  readonly token?: Token | undefined;
  /**
   * Permits sending the token without TLS to another machine. Set it only on a network whose traffic no other party can read.
   * Default: false: `connect` throws a TypeError instead.
   */
  readonly allowPlaintextToken?: boolean | undefined;
  /** How long a call waits for its response, including retries, in ms. Default: 10 000. */
  readonly deadlineMs?: number | undefined;
  /**
   * Whether a call that failed with a retryable status is sent again, by the policy of `service_config.json`: up to five
   * attempts within about four seconds. Writes carry a request id, so a retry never executes a write twice. Default:
   * true.
   */
  readonly retry?: boolean | undefined;
  /** Closes the connection when the signal aborts. */
  readonly signal?: AbortSignal | undefined;
  /** Additional channel options of grpc-js. */
  readonly channelOptions?: ChannelOptions | undefined;
}

/** Options of a resident client: those of the connection, and which agents it holds. */
export interface ResidentOptions extends ConnectOptions {
  /**
   * Names of the agents to hold, 1 to 1000; they need not exist yet. `'all'` holds every agent, including those that are
   * created later.
   */
  readonly agents: readonly string[] | 'all';
  /** A name for this process in the list of watchers, at most 100 characters. Default: empty. */
  readonly clientName?: string | undefined;
  /** The version of this process in the list of watchers, at most 50 characters. Default: empty. */
  readonly clientVersion?: string | undefined;
  /** Saves the held state in an encrypted file. Default: no file is written. */
  readonly cache?: CacheOptions | undefined;
  /**
   * Lifetime of the leases of stored API keys, 1 000 to 3 600 000 ms. While the service is unavailable, a leased key
   * remains usable until its lease expires. Default: 600 000.
   */
  readonly leaseMs?: number | undefined;
  /**
   * How the client reports the usage of model calls: it sends the attempts of all receipts to the service in the
   * background. `false`: usage is not reported. Default: `{}`, the defaults of these options. Only the entry points for
   * AI SDKs make model calls.
   */
  readonly usage?: false | UsageOptions | undefined;
  /** The size of reservations if budgets limit the agents. Default: see the fields. */
  readonly reservation?: ReservationOptions | undefined;
}

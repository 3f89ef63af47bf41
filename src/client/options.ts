import type { ChannelOptions } from '@grpc/grpc-js';
import type { TlsOptions } from './channel.js';
import type { Token } from './headers.js';
import type { CacheOptions } from './snapshot_cache.js';

/** How the service is reached. */
export interface ConnectOptions {
  /**
   * `host:port`, or any target that gRPC knows (`dns:///…`, `unix:…`). Default: the environment's AGENTLLM_ADDRESS, else
   * 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /**
   * Encrypts the connection; `true` trusts the certificate authorities of the system. Default: false, for a service on
   * this machine.
   */
  readonly tls?: boolean | TlsOptions | undefined;
  /**
   * Sent as `authorization: Bearer …`; a function is asked anew for each call, and its failure is the call's, with code
   * UNAUTHENTICATED; an empty text sends none. Default: AGENTLLM_TOKEN, else none.
   */
  readonly token?: Token | undefined;
  /** Sends the token without TLS to another machine too, where the network keeps others out. Default: false. */
  readonly allowPlaintextToken?: boolean | undefined;
  /** How long a call waits for its answer, retries included, in ms. Default: 10 000. */
  readonly deadlineMs?: number | undefined;
  /**
   * Whether calls that the service could not take are sent again, by the policy of `service_config.json`: up to five
   * times in about four seconds. Writes carry a request id, so nothing is done twice. Default: true.
   */
  readonly retry?: boolean | undefined;
  /** Closes the connection when it aborts. */
  readonly signal?: AbortSignal | undefined;
  /** Options of the channel, for what is not said here. */
  readonly channelOptions?: ChannelOptions | undefined;
}

/** How the service is reached, and what is held of it. */
export interface ResidentOptions extends ConnectOptions {
  /** The agents to hold, 1 to 1000 by name, whether they exist yet or not; or `'all'`, also those to come. */
  readonly agents: readonly string[] | 'all';
  /** What this process is, for people who look at the list of watchers: at most 100 characters. Default: empty. */
  readonly clientName?: string | undefined;
  /** Its version, at most 50 characters. Default: empty. */
  readonly clientVersion?: string | undefined;
  /** Keeps what is held in a file, encrypted. Default: nothing is written. */
  readonly cache?: CacheOptions | undefined;
  /**
   * For how long stored API keys are leased, 1 000 to 3 600 000 ms: so long can they be used while the service is away.
   * Default: 600 000.
   */
  readonly leaseMs?: number | undefined;
}

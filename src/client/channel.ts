import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type ChannelCredentials, type ChannelOptions, Client, credentials } from '@grpc/grpc-js';
import { serviceConfig } from '../../gen/ts/service_config.js';
import { ipOf, isLocal } from './address.js';
import type { Security } from './message.js';
import { unref } from './unref.js';

/** PEM texts. */
export interface TlsOptions {
  /** Authorities to trust in place of the system's. */
  readonly ca?: string | Uint8Array | undefined;
  /** Certificate of this client, where the service wants one (mutual TLS); with its key. */
  readonly cert?: string | Uint8Array | undefined;
  /** The key of `cert`. */
  readonly key?: string | Uint8Array | undefined;
  /** The name in the service's certificate, where the address has another one. */
  readonly serverName?: string | undefined;
}

/** What a channel is made of. */
export interface ChannelSettings {
  readonly tls?: boolean | TlsOptions | undefined;
  readonly retry?: boolean | undefined;
  readonly channelOptions?: ChannelOptions | undefined;
}

/** Answers may be long: a thousand configs with 16 KiB of metadata each. */
const MOST_BYTES = 64 * 1024 * 1024;

/** What TLS is asked for. */
export function securityOf({ tls }: ChannelSettings): Security {
  if (!tls) return 'clear';
  return typeof tls === 'object' && tls.cert !== undefined ? 'mutual' : 'tls';
}

/** A channel for calls. */
export const callChannel = (address: string, settings: ChannelSettings): Client =>
  new Client(address, channelCredentials(address, settings.tls), channelOptions(address, settings));

/**
 * A channel for a stream that stays: a connection of its own, which keeps no process alive while those of calls do. It
 * asks less often whether the other end is there, as the stream says so by itself, and nothing is sent again behind the
 * back of who owns the stream.
 */
export const streamChannel = (address: string, settings: ChannelSettings): Client =>
  new Client(address, unref(channelCredentials(address, settings.tls)), {
    ...channelOptions(address, settings),
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5_000,
    ...settings.channelOptions,
    'grpc.enable_retries': 0,
    'grpc.use_local_subchannel_pool': 1,
  });

function channelCredentials(address: string, tls: ChannelSettings['tls']): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key, serverName } = tls === true ? ({} as TlsOptions) : tls;
  const bytes = (pem: string | Uint8Array | undefined) => (pem === undefined ? null : Buffer.from(pem as Uint8Array));
  const ip = serverName ? undefined : ipOf(address);
  const verify = ip ? { checkServerIdentity: (_: string, seen: PeerCertificate) => checkServerIdentity(ip, seen) } : {};
  return credentials.createSsl(bytes(ca), bytes(key), bytes(cert), verify);
}

/** The names that TLS and HTTP/2 are told when they are not to be those of the address. */
function serverNames(address: string, tls: ChannelSettings['tls']): ChannelOptions {
  const serverName = typeof tls === 'object' ? tls.serverName : undefined;
  if (serverName) return { 'grpc.ssl_target_name_override': serverName, 'grpc.default_authority': serverName };
  // grpc-js takes an IP for the name to ask for, which newer Node refuses; the certificate is checked for the IP anyway.
  return tls && ipOf(address) ? { 'grpc.ssl_target_name_override': 'agentllm' } : {};
}

const channelOptions = (
  address: string,
  { tls, retry = true, channelOptions: more }: ChannelSettings,
): ChannelOptions => ({
  'grpc.service_config': JSON.stringify(serviceConfig),
  // What a resolver says in its place must not take the retries away.
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': retry ? 1 : 0,
  // Room to keep the largest request that the service takes until it is answered, or it could not be sent again.
  'grpc.per_rpc_retry_buffer_size': 8 * 1024 * 1024,
  'grpc.retry_buffer_size': MOST_BYTES,
  'grpc.max_receive_message_length': MOST_BYTES,
  // A service that is frozen or gone without a word is noticed within 8 s, so that the call that finds out can still be
  // sent again before its deadline. Nothing is sent while no call runs.
  'grpc.keepalive_time_ms': 4_000,
  'grpc.keepalive_timeout_ms': 4_000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // A proxy that the environment names is for what is outside of this machine.
  ...(isLocal(address) && { 'grpc.enable_http_proxy': 0 }),
  ...serverNames(address, tls),
  ...more,
});

import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type ChannelCredentials, type ChannelOptions, Client, credentials } from '@grpc/grpc-js';
import { serviceConfig } from '../../gen/ts/service_config.js';
import { ipOf, isLocal } from './address.js';
import type { Security } from './message.js';
import { unref } from './unref.js';

/** TLS settings. Certificates and keys are in PEM format. */
export interface TlsOptions {
  /** Certificate authorities to trust. Default: those of the system. */
  readonly ca?: string | Uint8Array | undefined;
  /** The certificate of this client, for a service that requires one (mutual TLS). Set `key` too. Default: none. */
  readonly cert?: string | Uint8Array | undefined;
  /** The private key of `cert`. */
  readonly key?: string | Uint8Array | undefined;
  /** The host name in the certificate of the service, if it differs from the one in the address. */
  readonly serverName?: string | undefined;
}

/** Settings of a channel. */
export interface ChannelSettings {
  readonly tls?: boolean | TlsOptions | undefined;
  readonly retry?: boolean | undefined;
  readonly channelOptions?: ChannelOptions | undefined;
}

/** Responses may be large: a thousand configs with 16 KiB of metadata each. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** The security that the options request. */
export function securityOf({ tls }: ChannelSettings): Security {
  if (!tls) return 'plaintext';
  return typeof tls === 'object' && tls.cert !== undefined ? 'mutual' : 'tls';
}

/** A channel for unary calls. */
export const callChannel = (address: string, settings: ChannelSettings): Client =>
  new Client(address, channelCredentials(address, settings.tls), channelOptions(address, settings));

/**
 * A channel for a long-lived stream. It has a separate connection, which does not keep the process alive. Its keepalive
 * is less frequent, because the stream sends bookmarks, and it has no retries, because the owner of the stream reopens it.
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

/** The names for TLS and HTTP/2 if they differ from the address. */
function serverNames(address: string, tls: ChannelSettings['tls']): ChannelOptions {
  const serverName = typeof tls === 'object' ? tls.serverName : undefined;
  if (serverName) return { 'grpc.ssl_target_name_override': serverName, 'grpc.default_authority': serverName };
  // grpc-js would send an IP address as server name, which newer versions of Node reject. The certificate is still
  // checked for the IP address.
  return tls && ipOf(address) ? { 'grpc.ssl_target_name_override': 'agentllm' } : {};
}

const channelOptions = (
  address: string,
  { tls, retry = true, channelOptions: more }: ChannelSettings,
): ChannelOptions => ({
  'grpc.service_config': JSON.stringify(serviceConfig),
  // A service config from the resolver must not replace the retry policy.
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': retry ? 1 : 0,
  // Room for the largest request that the service accepts; a request that is not buffered cannot be sent again.
  'grpc.per_rpc_retry_buffer_size': 8 * 1024 * 1024,
  'grpc.retry_buffer_size': MAX_MESSAGE_BYTES,
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  // Detects a service that hangs or has lost its network within 8 s, so that the call can be retried before its default
  // deadline. No pings are sent while no call is in progress.
  'grpc.keepalive_time_ms': 4_000,
  'grpc.keepalive_timeout_ms': 4_000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // A proxy from the environment cannot reach this machine.
  ...(isLocal(address) && { 'grpc.enable_http_proxy': 0 }),
  ...serverNames(address, tls),
  ...more,
});

import { type Address, isLoopback, type Settings } from '../config.js';
import type { Anonymous } from '../domain/access.js';
import { StartError } from '../errors.js';

/** Options that exist only on the command line, because they remove protection. */
export interface ServeFlags {
  readonly allowPlaintext: boolean;
  readonly allowAnonymous: boolean;
}

/** The callers that have access to the running service. */
export type AccessPolicy = 'this machine' | 'tokens' | 'anonymous';

type Addresses = Pick<Settings, 'GRPC_ADDRESS' | 'HTTP_ADDRESS'>;

/** The addresses that other machines can reach. */
function exposed({ GRPC_ADDRESS: grpc, HTTP_ADDRESS: http }: Addresses): readonly Address[] {
  return (http === 'off' ? [grpc] : [grpc, http]).filter((address) => !isLoopback(address));
}

const named = (addresses: readonly Address[]) => [...new Set(addresses.map(({ text }) => text))].join(' and ');

/** Throws if the service would accept plaintext connections from other machines. */
export function refusePlaintext(settings: Addresses & Pick<Settings, 'TLS_CERT_FILE'>, flags: ServeFlags): void {
  const reachable = exposed(settings);
  if (reachable.length === 0 || settings.TLS_CERT_FILE !== undefined || flags.allowPlaintext) return;
  throw new StartError(
    `${named(reachable)} can be reached from other machines without encryption. ` +
      'Set TLS_CERT_FILE and TLS_KEY_FILE (agentllm cert dev generates test certificates), listen on 127.0.0.1, ' +
      'or add --allow-plaintext if the network is protected otherwise.',
  );
}

/** Throws if callers without a token could use the service from other machines. */
export function refuseAnonymous(settings: Addresses, flags: ServeFlags, tokensExist: boolean): void {
  const reachable = exposed(settings);
  if (reachable.length === 0 || tokensExist || flags.allowAnonymous) return;
  throw new StartError(
    `${named(reachable)} can be reached from other machines, and no token exists to authorize callers. ` +
      'Create one with agentllm token create --role admin --local and restart, listen on 127.0.0.1, ' +
      'or add --allow-anonymous if every caller may read and change everything.',
  );
}

export function anonymousOf(settings: Addresses, { allowAnonymous }: ServeFlags): Anonymous {
  if (allowAnonymous) return 'allowed';
  return exposed(settings).length === 0 ? 'loopback' : 'never';
}

export function accessOf(anonymous: Anonymous, tokensExist: boolean): AccessPolicy {
  if (anonymous === 'allowed') return 'anonymous';
  return anonymous === 'loopback' && !tokensExist ? 'this machine' : 'tokens';
}

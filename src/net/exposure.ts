import { type Address, isLoopback, type Settings } from '../config.js';
import type { Anonymous } from '../domain/access.js';
import { StartError } from '../errors.js';

/** What was said on the command line and nowhere else, because it takes protection away. */
export interface ServeFlags {
  readonly allowPlaintext: boolean;
  readonly allowAnonymous: boolean;
}

/** Who has access to a service that runs. */
export type AccessPolicy = 'this machine' | 'tokens' | 'everybody';

type Addresses = Pick<Settings, 'GRPC_ADDRESS' | 'HTTP_ADDRESS'>;

/** The addresses that other machines can reach. */
function exposed({ GRPC_ADDRESS: grpc, HTTP_ADDRESS: http }: Addresses): readonly Address[] {
  return (http === 'off' ? [grpc] : [grpc, http]).filter((address) => !isLoopback(address));
}

const named = (addresses: readonly Address[]) => [...new Set(addresses.map(({ text }) => text))].join(' and ');

/** Throws when what is said would go over a network in clear. */
export function refusePlaintext(settings: Addresses & Pick<Settings, 'TLS_CERT_FILE'>, flags: ServeFlags): void {
  const reachable = exposed(settings);
  if (reachable.length === 0 || settings.TLS_CERT_FILE !== undefined || flags.allowPlaintext) return;
  throw new StartError(
    `${named(reachable)} can be reached from other machines, and everything would go there in clear. ` +
      'Set TLS_CERT_FILE and TLS_KEY_FILE (agentllm cert dev makes some to try), listen on 127.0.0.1, ' +
      'or add --allow-plaintext if the network around it keeps others out.',
  );
}

/** Throws when everybody on a network could read and change everything. */
export function refuseAnonymous(settings: Addresses, flags: ServeFlags, tokensExist: boolean): void {
  const reachable = exposed(settings);
  if (reachable.length === 0 || tokensExist || flags.allowAnonymous) return;
  throw new StartError(
    `${named(reachable)} can be reached from other machines, and there is no token by which to know who may do what. ` +
      'Make one with agentllm token create --role admin --local and start again, listen on 127.0.0.1, ' +
      'or add --allow-anonymous if everybody there may read and change everything.',
  );
}

export function anonymousOf(settings: Addresses, { allowAnonymous }: ServeFlags): Anonymous {
  if (allowAnonymous) return 'allowed';
  return exposed(settings).length === 0 ? 'loopback' : 'never';
}

export function accessOf(anonymous: Anonymous, tokensExist: boolean): AccessPolicy {
  if (anonymous === 'allowed') return 'everybody';
  return anonymous === 'loopback' && !tokensExist ? 'this machine' : 'tokens';
}

import type { GetCallerResponse } from '../../../gen/ts/agentllm/v1/access_service.js';
import { isLocal } from '../../client/address.js';
import type { AgentLLMError } from '../../client/index.js';
import { roleName } from '../../domain/access.js';
import type { Token } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { stateOfToken } from '../../domain/token.js';
import type { Connection } from '../kit/connection.js';
import { counted, moment } from '../kit/print.js';
import { type Diagnosis, diagnosisFactory } from './diagnosis.js';

const found = diagnosisFactory('access');
const DAY_MS = 86_400_000;
const SOON_MS = 14 * DAY_MS;
const RENEWAL_REMEDY = 'agentllm token create creates another, agentllm token revoke removes it';

/** The identity that a service gives this shell, and the security of the connection. */
export function* examineCaller(caller: GetCallerResponse, { address, secure }: Connection): Generator<Diagnosis> {
  const { actor, role, expires_at } = caller;
  const isAnonymous = role === 'ROLE_UNSPECIFIED';
  const how = secure ? 'with TLS' : 'without TLS';
  if (!isAnonymous) {
    const until = expires_at ? `, until ${moment(expires_at)}` : '';
    yield found('ok', `This shell is ${actor}, ${roleName(role)}${until}, ${how}`);
  } else if (isLocal(address)) {
    const closes = 'If others use it: agentllm token create --role admin --local';
    yield found('ok', `The service is open: callers on this machine need no token, ${how}`, closes);
  } else
    yield found(
      'warn',
      `The service is open to every caller that can reach ${address}`,
      'Start it without --allow-anonymous',
    );
  if (!secure && !isLocal(address))
    yield found('warn', `The connection to ${address} is not encrypted`, 'Set TLS_CERT_FILE and TLS_KEY_FILE');
}

/** The diagnosis for an authentication error; undefined for other errors. */
export function diagnoseAccessError({ reason, message }: AgentLLMError, address: string): Diagnosis | undefined {
  if (reason === 'TOKEN_REQUIRED')
    return found(
      'warn',
      `${address} requires a token, and this shell has none`,
      'Set AGENTLLM_TOKEN, or use --token-file',
    );
  if (['TOKEN_UNKNOWN', 'TOKEN_EXPIRED', 'TOKEN_REVOKED', 'CERTIFICATE_NOT_BOUND'].includes(reason ?? ''))
    return found('fail', `${address} returns: ${message}`, 'agentllm token create creates another');
  return undefined;
}

/** Checks for an administrator token and for tokens that expire soon. */
export function* examineTokens({ tokens }: State, now: Date): Generator<Diagnosis> {
  const unrevoked = [...tokens.values()].filter(({ revoked_at }) => !revoked_at);
  if (tokens.size === 0) return;
  const active = unrevoked.filter((token) => stateOfToken(token, now) === 'TOKEN_STATE_ACTIVE');
  const admins = active.filter(({ role }) => role === 'ROLE_ADMIN');
  const remedy = 'On the machine of the service: agentllm token create --role admin --local';
  if (admins.length > 0)
    yield found('ok', `${counted(active.length, 'token')} of the store ${active.length === 1 ? 'is' : 'are'} valid`);
  else yield found('warn', 'No administrator token is valid', remedy);
  for (const token of unrevoked) yield* examineExpiry(token, now);
}

function* examineExpiry({ token_id, name, expires_at }: Token, now: Date): Generator<Diagnosis> {
  if (!expires_at || expires_at.getTime() - now.getTime() > SOON_MS) return;
  const expires = expires_at <= now ? 'expired' : 'expires';
  yield found('warn', `Token ${token_id} "${name}" ${expires} at ${moment(expires_at)}`, RENEWAL_REMEDY);
}

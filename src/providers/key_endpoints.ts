import type { Provider } from '../domain/rows.js';
import type { CheckOutcome } from './check_outcomes.js';

/**
 * What a built-in provider says of a key besides the list of its models. Only
 * findings against the key count; when the endpoint fails, or takes more than
 * half of the time, the list decides.
 */
export interface KeyEndpoint {
  /** Asked before the list, because that may not tell, or after it, because that says more. */
  readonly when: 'before' | 'after';
  /** Where it is, from the provider's base URL: another base, and a path below it. */
  readonly at: (base: string) => readonly [base: string, path: string];
  /** What its answer has against the key. */
  readonly read: (json: Readonly<Record<string, unknown>>) => CheckOutcome | undefined;
}

const endpoints: ReadonlyMap<string, KeyEndpoint> = new Map<string, KeyEndpoint>([
  [
    'grok',
    {
      when: 'before',
      at: (base) => [base, '/api-key'],
      read: (json) => {
        if (json['team_blocked'] === true) return 'TEAM_BLOCKED';
        if (json['api_key_blocked'] === true) return 'KEY_BLOCKED';
        return json['api_key_disabled'] === true ? 'KEY_DISABLED' : undefined;
      },
    },
  ],
  [
    'deepseek',
    {
      when: 'after',
      at: (base) => [new URL(base).origin, '/user/balance'],
      read: (json) => (json['is_available'] === false ? 'NO_CREDIT' : undefined),
    },
  ],
]);

export const keyEndpointOf = ({ name, built_in }: Provider): KeyEndpoint | undefined =>
  built_in ? endpoints.get(name) : undefined;

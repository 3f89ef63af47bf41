import type { Provider } from '../domain/rows.js';
import type { CheckOutcome } from './check_outcomes.js';

/**
 * An endpoint of a built-in provider that reports the state of a key, in addition
 * to the model list. Only a report against the key counts. If the endpoint fails,
 * or takes more than half of the time, the list decides.
 */
export interface KeyEndpoint {
  /** Whether it is called before the list, which may accept a blocked key, or after it, whose errors are more precise. */
  readonly when: 'before' | 'after';
  /** Its base and path for the base URL of the provider. */
  readonly at: (base: string) => readonly [base: string, path: string];
  /** The outcome that its response reports against the key; undefined: none. */
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

import { BlockList } from 'node:net';
import { describe, expect, it } from 'vitest';
import type { FakeProvider } from '../../src/fake_provider/fake_provider.js';
import type { ScriptInput } from '../../src/fake_provider/script.js';
import { checkProvider } from '../../src/providers/check_provider.js';
import { type Kind, providerRow } from '../providers/fake_provider.js';
import { fakeProvider } from './support.js';

/*
 * The checks of keys and models that the service makes at the four built-in providers work against the fake provider.
 */

const KEY = 'sk-of-a-test-0123456789';
const allowed = new BlockList();
allowed.addSubnet('127.0.0.0', 8);

const BASES: Readonly<Record<Kind, (fake: FakeProvider) => string>> = {
  openai: (fake) => fake.baseUrl('openai'),
  deepseek: (fake) => fake.baseUrl('deepseek'),
  grok: (fake) => fake.baseUrl('xai'),
  claude: (fake) => fake.baseUrl('anthropic'),
};

async function check(kind: Kind, script: ScriptInput, models: readonly string[] = [], key = KEY): Promise<string[]> {
  const fake = await fakeProvider({ script });
  const provider = providerRow(kind, BASES[kind](fake));
  const replies = await checkProvider(provider, key, models, { allowed, timeoutMs: 5000 });
  return replies.map(({ status }) => status.replace('CHECK_STATUS_', ''));
}

describe.each<[Kind, string]>([
  ['openai', 'gpt-4o'],
  ['deepseek', 'deepseek-chat'],
  ['grok', 'grok-4.3'],
  ['claude', 'claude-haiku-4-5'],
])('a check at %s', (kind, model) => {
  it('accepts a valid key and rejects another one', async () => {
    expect(await check(kind, { keys: [KEY] })).toEqual(['OK']);
    expect(await check(kind, { keys: [KEY] }, [], 'sk-of-another-test')).toEqual(['INVALID']);
  });

  it('finds the models that are served', async () => {
    expect(await check(kind, { served_models: [model] }, [model, 'absent'])).toEqual(['OK', 'MODEL_MISSING']);
  });

  it.each([
    ['rate-limit,retry_after=7', 'RATE_LIMITED'],
    ['quota', 'NO_CREDIT'],
    ['permission', 'FORBIDDEN'],
    ['server-error', 'PROVIDER_ERROR'],
    ['reset', 'UNREACHABLE'],
    ['html', 'PROVIDER_ERROR'],
  ])('reports %s as %s', async (fault, status) => {
    expect(await check(kind, { rules: [{ fault }] })).toEqual([status]);
  });
});

describe('a check of the state of a key', () => {
  it.each(['key-blocked', 'key-disabled', 'team-blocked'])('reports %s at xAI', async (fault) => {
    expect(await check('grok', { rules: [{ fault }] })).toEqual(['INVALID']);
  });

  it('reports an account without balance at DeepSeek, also when only the balance says so', async () => {
    expect(await check('deepseek', { rules: [{ match: { api: 'key' }, fault: 'quota' }] })).toEqual(['NO_CREDIT']);
  });
});

import { describe, expect, it } from 'vitest';
import { readSettings, settings } from '../../src/config.js';
import { BUILT_IN_KEYS, keyOfHop, readAllowedVariables, sendProblem } from '../../src/domain/key_choice.js';
import { originOf } from '../../src/domain/origin.js';
import type { Config, Provider } from '../../src/domain/rows.js';
import { configRow, NOW, seededCatalogue } from './support.js';

const world = seededCatalogue();
const { state } = world;
const mine = world.provider({
  name: 'mine',
  dialect: 'DIALECT_OPENAI_COMPATIBLE',
  base_url: 'https://llm.example.com',
  api_key_env_vars: ['MINE_API_KEY', 'OPENAI_API_KEY'],
});
const credential = world.write((_, draft) =>
  draft.create('credential', {
    id: 0,
    name: 'desk',
    provider: 'claude',
    description: null,
    key_id: 'k',
    key_revision: 1,
    created_at: NOW,
    updated_at: NOW,
    revision: 0,
  }),
);
const provider = (name: string) => state.provider(name) as Provider;
const choose = (config: Partial<Config>, target: Provider, ...set: readonly string[]) =>
  keyOfHop(state, configRow(config), target, new Map(set.map((variable) => [variable, 'sk'])));

describe('the key of a hop', () => {
  it('is the key of the config, only for the provider of the config', () => {
    const withKey = { provider: 'openai', key_id: 'k' };
    expect(choose(withKey, provider('openai'), 'OPENAI_API_KEY').source).toBe('KEY_SOURCE_CONFIG');
    expect(choose(withKey, provider('claude'), 'ANTHROPIC_API_KEY').source).toBe('KEY_SOURCE_ENVIRONMENT');
    expect(choose(withKey, provider('claude')).source).toBe('KEY_SOURCE_NONE');
  });

  it('is the key of the credential, only for the provider of the credential, when the config has no key', () => {
    const withCredential = { provider: 'claude', credential_id: credential.id };
    expect(choose(withCredential, provider('claude'), 'ANTHROPIC_API_KEY')).toEqual({
      source: 'KEY_SOURCE_CREDENTIAL',
      row: credential,
    });
    expect(choose(withCredential, provider('openai')).source).toBe('KEY_SOURCE_NONE');
  });

  it('is the first variable of its provider that is set when there is no stored key', () => {
    expect(choose({}, provider('grok'), 'XAI_API_KEY', 'GROK_API_KEY')).toMatchObject({ variable: 'GROK_API_KEY' });
    expect(choose({}, provider('grok'), 'XAI_API_KEY')).toMatchObject({ variable: 'XAI_API_KEY' });
    expect(choose({}, mine, 'MINE_API_KEY')).toMatchObject({ variable: 'MINE_API_KEY' });
  });

  it('is never a variable of a built-in provider when the origin differs', () => {
    expect(choose({}, mine, 'OPENAI_API_KEY').source).toBe('KEY_SOURCE_NONE');
    const moved = { ...provider('openai'), base_url: 'https://evil.example.com/v1' };
    expect(choose({}, moved, 'OPENAI_API_KEY').source).toBe('KEY_SOURCE_NONE');
    const renamed = { ...provider('openai'), name: 'claude' };
    expect(choose({}, renamed, 'OPENAI_API_KEY').source).toBe('KEY_SOURCE_NONE');
  });
});

describe('an API key variable', () => {
  const local = { name: 'local', base_url: 'http://127.0.0.1:11434/v1' };

  it('is sent to an operator-defined provider only when PROVIDER_ALLOW_KEY_VARS lists it', () => {
    expect(sendProblem('LOCAL_API_KEY', local, ['LOCAL_API_KEY'])).toBeUndefined();
    expect(sendProblem('STRIPE_API_KEY', local, ['LOCAL_API_KEY'])).toMatch(
      /^PROVIDER_ALLOW_KEY_VARS .* does not list STRIPE_API_KEY; add it/,
    );
    expect(sendProblem('HF_TOKEN', local, ['HF_TOKEN'])).toMatch(/capital letters, .* such as LOCAL_LLM_API_KEY$/);
  });

  it('is sent to a built-in provider only at its own origin and with an unambiguous base URL', () => {
    const openai = { name: 'openai', base_url: 'https://api.openai.com/v1' };
    expect(sendProblem('OPENAI_API_KEY', openai, [])).toBeUndefined();
    for (const target of [
      local,
      { ...local, base_url: openai.base_url },
      { ...openai, base_url: 'https://api.openai.com:8443/v1' },
      { ...openai, base_url: 'https://api.openai.com\\@10.0.0.1/v1' },
    ])
      expect(sendProblem('OPENAI_API_KEY', target, ['OPENAI_API_KEY'])).toMatch(/is sent to openai at .* only$/);
  });

  it('is read from PROVIDER_ALLOW_KEY_VARS without surrounding blanks and empty entries', () => {
    expect(readAllowedVariables(' A_API_KEY ,, B_API_KEY')).toEqual(['A_API_KEY', 'B_API_KEY']);
    expect(readAllowedVariables(undefined)).toEqual([]);
  });
});

describe('the variables of the built-in providers', () => {
  it('equal those of the catalogue, with its origins', () => {
    const builtIn = [...state.providersInOrder.after()].filter((row) => row.built_in);
    const catalogue = builtIn.map(({ name, base_url, api_key_env_vars }) => [
      name,
      { origin: originOf(base_url), variables: api_key_env_vars },
    ]);
    expect(BUILT_IN_KEYS).toEqual(Object.fromEntries(catalogue));
  });

  it('equal those of the settings', () => {
    const named = Object.values(BUILT_IN_KEYS).flatMap(({ variables }) => variables);
    expect(
      Object.keys(settings)
        .filter((name) => name.endsWith('_API_KEY'))
        .sort(),
    ).toEqual(named.sort());
    const env = Object.fromEntries(named.map((name) => [name, 'sk']));
    expect([...readSettings(env).providerKeys.keys()].sort()).toEqual(named);
  });
});

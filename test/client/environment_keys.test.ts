import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { until } from '../support/until.js';
import { agent, config, openai, startResident } from './fake_watch.js';
import { failed } from './support.js';

/* Which variables of its environment an agent process sends to which provider. */

type Fields = NonNullable<Parameters<typeof openai>[0]>;

beforeEach(() => {
  vi.stubEnv('STRIPE_API_KEY', 'sk-CANARY-stripe');
  vi.stubEnv('LOCAL_LLM_API_KEY', 'sk-CANARY-local');
  vi.stubEnv('OPENAI_API_KEY', 'sk-CANARY-openai');
  vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** The agent of a client that received one provider, operator-defined by default, with the given fields. */
async function agentWithProvider(fields: Fields = {}) {
  const name = fields.name ?? 'mine';
  const trader = agent('trader', 1, { configs: [config(8, 1, { provider: name, model_name: 'm' })] });
  const { client, stream } = await startResident([trader]);
  const base_url = 'https://llm.example.com/v1';
  stream.change(11, [], [openai({ name, aliases: [], built_in: false, base_url, ...fields })]);
  await until(() => client.state.revision === 11n);
  return client.agent('trader');
}
const keyVars = (...api_key_env_vars: string[]): Fields => ({ api_key_env_vars });

describe('an environment variable of the agent process', () => {
  it('is not sent to an operator-defined provider when PROVIDER_ALLOW_KEY_VARS does not list it', async () => {
    const handle = await agentWithProvider(keyVars('STRIPE_API_KEY'));
    const error = await failed(handle.apiKey());
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(error.message).toBe(
      'STRIPE_API_KEY may not be sent to provider "mine" at https://llm.example.com: ' +
        'PROVIDER_ALLOW_KEY_VARS in the environment of this process does not list STRIPE_API_KEY; ' +
        'add it if that provider may have the key',
    );
    expect(JSON.stringify(error)).not.toContain('CANARY');
  });

  it.each(['', 'LOCAL_LLM_API_KEY', 'STRIPE', 'STRIPE_API_KEYS', '*', 'stripe_api_key', ' ,, '])(
    'is not sent when PROVIDER_ALLOW_KEY_VARS is %j',
    async (list) => {
      vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', list);
      await failed((await agentWithProvider(keyVars('STRIPE_API_KEY'))).apiKey());
    },
  );

  it('is sent when PROVIDER_ALLOW_KEY_VARS lists it', async () => {
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'OTHER_API_KEY, LOCAL_LLM_API_KEY');
    const handle = await agentWithProvider(keyVars('LOCAL_LLM_API_KEY'));
    expect(await handle.apiKey()).toBe('sk-CANARY-local');
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', '');
    await failed(handle.apiKey());
  });

  it('is skipped in favour of the next listed variable when it is not listed', async () => {
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'LOCAL_LLM_API_KEY');
    expect(await (await agentWithProvider(keyVars('STRIPE_API_KEY', 'LOCAL_LLM_API_KEY'))).apiKey()).toBe(
      'sk-CANARY-local',
    );
  });

  it('is ignored when it is not set, whether it is listed or not', async () => {
    const handle = await agentWithProvider(keyVars('UNSET_API_KEY'));
    expect(await handle.apiKey()).toBeUndefined();
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'UNSET_API_KEY');
    expect(await handle.apiKey()).toBeUndefined();
  });

  it('of a built-in provider is sent to the origin of that provider only, whether it is listed or not', async () => {
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'OPENAI_API_KEY');
    expect(await (await agentWithProvider(keyVars('OPENAI_API_KEY'))).apiKey()).toBeUndefined();
    const moved = { name: 'openai', built_in: true, ...keyVars('OPENAI_API_KEY') };
    expect(await (await agentWithProvider(moved)).apiKey()).toBeUndefined();
    const own = await agentWithProvider({ ...moved, base_url: 'https://api.openai.com/v1' });
    expect(await own.apiKey()).toBe('sk-CANARY-openai');
    // A hop that another process resolved, such as one returned by ResolveConfig.
    const hop = { ...own.resolve().hops[0], base_url: 'https://llm.example.com/v1' } as Parameters<
      typeof own.apiKey
    >[0];
    const error = await failed(own.apiKey(hop));
    expect(error.message).toContain('OPENAI_API_KEY is sent to openai at https://api.openai.com only');
  });

  it('is not sent when its name is not that of a key, even when it is listed', async () => {
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'CANARY');
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'AWS_SECRET_ACCESS_KEY');
    const error = await failed((await agentWithProvider(keyVars('AWS_SECRET_ACCESS_KEY'))).apiKey());
    expect(error.message).toContain('end in _API_KEY, such as LOCAL_LLM_API_KEY');
  });

  it('is not sent when URL parsers disagree about the host', async () => {
    vi.stubEnv('PROVIDER_ALLOW_KEY_VARS', 'LOCAL_LLM_API_KEY');
    const handle = await agentWithProvider({
      ...keyVars('LOCAL_LLM_API_KEY'),
      base_url: 'https://example.com\\@10.0.0.1/v1',
    });
    expect(handle.resolve()).toMatchObject({ hops: [], skipped: [{ reason: 'SKIP_REASON_BASE_URL_INVALID' }] });
    const builtIn = await agentWithProvider({
      name: 'openai',
      built_in: true,
      ...keyVars('OPENAI_API_KEY'),
      base_url: 'https://api.openai.com\\@10.0.0.1/v1',
    });
    await failed(builtIn.apiKey());
    const hop = {
      config_id: 8,
      provider: 'mine',
      base_url: 'https://example.com\\@10.0.0.1/v1',
      key: {
        source: 'KEY_SOURCE_ENVIRONMENT',
        name: '',
        variables: ['LOCAL_LLM_API_KEY'],
        state: 'API_KEY_STATE_NONE',
      },
    } as const;
    expect((await failed(handle.apiKey(hop))).message).toMatch(/is not canonical; set base_url again/);
  });
});

it('a base URL of an earlier release is resolved in its canonical form', async () => {
  const handle = await agentWithProvider({ base_url: 'HTTPS://LLM.example.com:443/v1/' });
  expect(handle.resolve().hops).toMatchObject([{ base_url: 'https://llm.example.com/v1' }]);
});

import { describe, expect, it } from 'vitest';
import { unique } from '../../support/service.js';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();

const newProvider = async (...more: string[]): Promise<string> => {
  const name = unique('local').toLowerCase();
  const url = `https://${name.replace('_', '-')}.example.com/v1`;
  await cli.json(['providers', 'create', name, '--dialect', 'openai-compatible', '--base-url', url, ...more]);
  return name;
};

describe('agentllm providers', () => {
  it('list and get print providers, and get resolves an alias', async () => {
    const { stdout } = await cli(['providers', 'list']);
    expect(rowsOf(stdout).map(({ NAME }) => NAME)).toEqual(
      expect.arrayContaining(['claude', 'deepseek', 'grok', 'openai']),
    );
    expect((await cli.json(['providers', 'list', '--limit', '1'])).providers[0].name).toBe('claude');
    expect((await cli(['providers', 'get', 'Anthropic'])).stdout).toMatch(/^provider claude\n {2}display name {4}\S/);
    const missing = await cli(['providers', 'get', 'opnai']);
    expect([missing.code, missing.stderr]).toEqual([3, expect.stringContaining('did you mean "openai"?')]);
  });

  it('create, update and delete change a provider', async () => {
    const name = await newProvider(
      '--alias',
      unique('x').toLowerCase(),
      '--api-key-env',
      'LOCAL_API_KEY',
      '--api-key-env',
      'OTHER_API_KEY',
      '--rule',
      'temperature=accepted,maximum=1',
      '--rule',
      'seed=ignored',
    );
    const { provider } = await cli.json(['providers', 'get', name]);
    expect(provider).toMatchObject({
      dialect: 'DIALECT_OPENAI_COMPATIBLE',
      api_key_env_vars: ['LOCAL_API_KEY', 'OTHER_API_KEY'],
      parameter_rules: [
        { parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', maximum: 1 },
        { parameter: 'seed', support: 'PARAMETER_SUPPORT_IGNORED' },
      ],
    });
    expect((await cli(['providers', 'get', name])).stdout).toContain('temperature=accepted,maximum=1');
    const updated = await cli.json([
      'providers',
      'update',
      name,
      '--unset',
      'alias,rule',
      '--display-name',
      'Local',
      '--no-enabled',
      '--etag',
      provider.etag,
    ]);
    expect(updated.provider).toMatchObject({ aliases: [], parameter_rules: [], display_name: 'Local', enabled: false });
    expect((await cli(['providers', 'update', name, '--enabled', '--etag', provider.etag])).code).toBe(1);
    await cli.json(['models', 'create', `${name}/a`]);
    expect((await cli(['providers', 'delete', name])).stdout).toMatch(
      new RegExp(`^deleted provider ${name} with 1 model at revision`),
    );
  });

  it('create and update set the wire API, and update of the dialect sets its default', async () => {
    const name = await newProvider('--wire-api', 'responses');
    expect((await cli(['providers', 'get', name])).stdout).toMatch(/wire API {8}responses\n/);
    const rows = rowsOf((await cli(['providers', 'list'])).stdout);
    expect(rows).toContainEqual(
      expect.objectContaining({ NAME: name, DIALECT: 'openai-compatible', 'WIRE API': 'responses' }),
    );
    expect(rows).toContainEqual(expect.objectContaining({ NAME: 'claude', 'WIRE API': 'messages' }));
    const wireApi = async (...args: string[]) =>
      (await cli.json(['providers', 'update', name, ...args])).provider.wire_api;
    expect(await wireApi('--unset', 'wire-api')).toBe('WIRE_API_CHAT_COMPLETIONS');
    expect(await wireApi('--dialect', 'anthropic')).toBe('WIRE_API_MESSAGES');
    expect(await wireApi('--dialect', 'openai', '--wire-api', 'responses')).toBe('WIRE_API_RESPONSES');
    const invalid = await cli(['providers', 'update', name, '--wire-api', 'messages']);
    expect([invalid.code, invalid.stderr]).toEqual([
      2,
      expect.stringContaining('--wire-api messages  must be WIRE_API_CHAT_COMPLETIONS or WIRE_API_RESPONSES'),
    ]);
    const unknown = await cli(['providers', 'update', name, '--wire-api', 'morse']);
    expect(unknown.stderr).toContain('must be one of chat-completions, responses, messages');
  });

  it('create reports each violation under its option', async () => {
    const { code, stderr } = await cli([
      'providers',
      'create',
      'bad name',
      '--base-url',
      'http://127.0.0.1/v1',
      '--alias',
      'good',
      '--alias',
      'not good',
      '--api-key-env',
      'KEY',
    ]);
    expect([code, stderr.split('\n')[0]]).toEqual([2, 'agentllm: the request has 5 problems']);
    for (const typed of [
      'bad name',
      '--base-url http://127.0.0.1/v1',
      '--alias not good',
      '--api-key-env KEY',
      '--dialect',
    ])
      expect(stderr).toContain(`\n  ${typed}  `);
  });

  it('update is rejected when the field of a built-in provider is read-only', async () => {
    const { code, stderr } = await cli(['providers', 'update', 'openai', '--base-url', 'https://example.com']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('Provider "openai" is built in')]);
  });

  it('check-key checks a key from standard input', async () => {
    // The provider has an address that does not exist: a test sends no key to a real provider.
    const name = await newProvider();
    const key = 'sk-never-shown-1';
    const checked = await cli(['providers', 'check-key', name], { stdin: `${key}\n` });
    expect([checked.code, checked.stdout]).toEqual([1, expect.stringMatching(/^[a-z-]+: \S/)]);
    const json = await cli(['providers', 'check-key', name, '--model-name', 'a', '--json'], { stdin: key });
    expect([json.code, JSON.parse(json.stdout).check.status]).toEqual([1, expect.stringMatching(/^CHECK_STATUS_/)]);
    expect(checked.stdout + checked.stderr + json.stdout + json.stderr).not.toContain(key);
    expect((await cli(['providers', 'check-key', 'nobody'], { stdin: key })).code).toBe(3);
    const empty = await cli(['providers', 'check-key', name], { stdin: '\n' });
    expect([empty.code, empty.stderr]).toEqual([2, expect.stringContaining('standard input contains no API key')]);
  });
});

describe('agentllm models', () => {
  it('list and get print models, and get rejects a name without a provider', async () => {
    const { stdout } = await cli(['models', 'list', '--provider', 'openai']);
    expect(rowsOf(stdout)).toEqual(
      expect.arrayContaining([expect.objectContaining({ MODEL: 'openai/gpt-4o', 'BUILT IN': 'yes' })]),
    );
    expect((await cli(['models', 'get', 'openai/gpt-4o'])).stdout).toMatch(/^model openai\/gpt-4o\n/);
    expect((await cli(['models', 'get', 'openai/gpt-99'])).code).toBe(3);
    const invalid = await cli(['models', 'get', 'gpt-4o']);
    expect([invalid.code, invalid.stderr]).toEqual([
      2,
      expect.stringContaining('gpt-4o  must be provider/model, such as openai/gpt-5.4'),
    ]);
  });

  it('create accepts a price and a name with slashes', async () => {
    const name = `${await newProvider()}/meta/${unique('llama')}`;
    const created = await cli.json([
      'models',
      'create',
      name,
      '--context-window',
      '8192',
      '--vision',
      '--no-functions',
      '--no-forced-tool-choice',
      '--prefill',
      '--structured-output',
      '--input-price',
      '0.15',
      '--output-price',
      '0.6',
      '--price-source',
      'list',
      '--as-of',
      '2026-01-31',
    ]);
    expect(created.model).toMatchObject({
      name: name.slice(name.indexOf('/') + 1),
      context_window_tokens: 8192,
      supports_vision: true,
      supports_functions: false,
      supports_forced_tool_choice: false,
      supports_prefill: true,
      supports_structured_output: true,
      price: { input_micro_usd_per_million: 150000, output_micro_usd_per_million: 600000, source: 'list' },
      as_of: '2026-01-31T00:00:00.000Z',
    });
    const { stdout } = await cli(['models', 'get', name]);
    expect(stdout).toMatch(/input {15}0\.15\n/);
    expect(stdout).toMatch(
      /forced tool choice {2}no\n {2}prefill {13}yes\n {2}structured output {3}yes\n {2}shutdown {12}-\n/,
    );
    const updated = await cli.json(['models', 'update', name, '--input-price', '0.2', '--unset', 'as-of,vision']);
    expect(updated.model.price).toMatchObject({ input_micro_usd_per_million: 200000 });
    expect(updated.model.price).not.toHaveProperty('output_micro_usd_per_million');
    for (const field of ['as_of', 'supports_vision']) expect(updated.model).not.toHaveProperty(field);
    expect((await cli(['models', 'delete', name])).stdout).toMatch(new RegExp(`^deleted model ${name} at revision`));
  });

  it('retiring prints the agents and configs that use retiring models', async () => {
    const name = `openai/${unique('old')}`;
    const soon = new Date(Date.now() + 10 * 86_400_000).toISOString().slice(0, 10);
    await cli.json(['models', 'create', name, '--retires-at', soon, '--replaced-by', 'gpt-4o']);
    const { config } = await cli.json(['configs', 'create', 'trader', '--model', name]);
    const { stdout } = await cli(['models', 'retiring', '--days', '30']);
    expect(rowsOf(stdout)).toContainEqual({
      MODEL: name,
      STATE: 'retiring',
      SHUTDOWN: soon,
      'REPLACED BY': 'gpt-4o',
      AGENT: 'trader',
      CONFIG: String(config.id),
      AS: 'config',
      'IN USE': 'yes',
    });
    const { uses } = await cli.json(['models', 'retiring']);
    expect(uses).toContainEqual(expect.objectContaining({ config_id: config.id, replaced_by: 'gpt-4o' }));
    const invalid = await cli(['models', 'retiring', '--days', '0']);
    expect([invalid.code, invalid.stderr]).toEqual([2, expect.stringContaining('--days 0  must be')]);
  });
});

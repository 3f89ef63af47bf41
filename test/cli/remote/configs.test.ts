import { describe, expect, it } from 'vitest';
import { unique } from '../../support/service.js';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();

/** Creates an agent for one test. */
async function newAgent(): Promise<string> {
  const name = unique('agent');
  await cli.json(['agents', 'create', name, '--type', 'analyst']);
  return name;
}
const newConfig = async (agent: string, ...more: string[]): Promise<number> =>
  (await cli.json(['configs', 'create', agent, '--model', 'grok/grok-4.3', ...more])).config.id;

describe('agentllm configs', () => {
  it('list returns only the configs that match its filters', async () => {
    const { stdout } = await cli(['configs', 'list', '--agent', 'trader']);
    expect(rowsOf(stdout)).toEqual([
      expect.objectContaining({
        ID: '8',
        MODEL: 'openai/gpt-4',
        TEMPERATURE: '0.7',
        'MAX TOKENS': '2000',
        KEY: 'environment',
        ENABLED: 'yes',
      }),
    ]);
    const agent = await newAgent();
    await newConfig(agent);
    await newConfig(agent, '--no-enabled');
    const ofAgent = async (...more: string[]) =>
      (await cli.json(['configs', 'list', '--agent', agent, ...more])).configs.length;
    expect([
      await ofAgent(),
      await ofAgent('--enabled'),
      await ofAgent('--model', 'openai/gpt-4'),
      await ofAgent('--model', 'grok/grok-4.3'),
    ]).toEqual([2, 1, 0, 2]);
    const none = await cli(['configs', 'list', '--agent', agent, '--provider', 'claude']);
    expect(none.stdout).toBe('no config matches\n');
  });

  it('update, upsert and bulk are rejected when no field is set', async () => {
    for (const args of [
      ['update', '8'],
      ['upsert', 'trader'],
      ['bulk', 'trader', 'market_analyst'],
    ]) {
      const { code, stderr } = await cli(['configs', ...args, '--reason', 'none']);
      expect([args, code, stderr]).toEqual([args, 2, expect.stringContaining('agentllm: nothing to change: set')]);
    }
  });

  it('get names the command that lists ids when the argument is not an id', async () => {
    const { code, stderr } = await cli(['configs', 'get', 'trader']);
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining('trader  must be the id of a config; agentllm configs'),
    ]);
    const list = await cli(['configs', 'list', 'trader']);
    expect([list.code, list.stderr]).toEqual([2, expect.stringContaining('(use --agent to name an agent)')]);
  });

  it('create stores every field and get prints it', async () => {
    const agent = await newAgent();
    const created = await cli.json([
      'configs',
      'create',
      agent,
      '--model',
      'openai/gpt-4o',
      '--fallback',
      'claude/claude-3-haiku-20240307',
      '--temperature',
      '0',
      '--max-tokens',
      '100',
      '--top-p',
      '0.5',
      '--stop',
      'END',
      '--stop',
      'a,b',
      '--seed',
      '9007199254740991',
      '--request-timeout',
      '5000',
      '--input-cost',
      '0.01',
      '--output-cost',
      '0',
      '--no-enabled',
      '--priority',
      '-7',
      '--metadata',
      '{"a":[1]}',
      '--reason',
      'test',
    ]);
    expect(created.config).toMatchObject({
      provider: 'openai',
      model_name: 'gpt-4o',
      fallback_provider: 'claude',
      fallback_model: 'claude-3-haiku-20240307',
      temperature: 0,
      max_tokens: 100,
      top_p: 0.5,
      cost_per_1k_input_tokens: 0.01,
      cost_per_1k_output_tokens: 0,
      price_given: true,
      enabled: false,
      priority: -7,
      metadata_json: '{"a":[1]}',
      extra_params: { stop_sequences: ['END', 'a,b'], seed: 9007199254740991, request_timeout_ms: 5000 },
    });
    const { stdout } = await cli(['configs', 'get', String(created.config.id)]);
    for (const line of [
      `config ${created.config.id} of ${agent}`,
      'model             openai/gpt-4o',
      'stop              "END", "a,b"',
      'request timeout   5000 ms',
      'output            0',
    ])
      expect(stdout).toContain(line);
  });

  it('create accepts provider and model as separate options', async () => {
    const agent = await newAgent();
    const args = ['configs', 'create', agent, '--provider', 'anthropic', '--model-name', 'claude-3-haiku-20240307'];
    expect((await cli.json(args)).config).toMatchObject({ provider: 'claude', model_name: 'claude-3-haiku-20240307' });
  });

  it('update changes the fields that are set, keeps the others and clears with --unset', async () => {
    const id = String(
      await newConfig(
        await newAgent(),
        '--temperature',
        '1',
        '--max-tokens',
        '5',
        '--fallback',
        'claude/claude-3-haiku-20240307',
      ),
    );
    const { stdout } = await cli(['configs', 'update', id, '--temperature', '0']);
    expect(stdout).toMatch(new RegExp(`^updated config ${id} of agent_\\w+ at revision \\d+\n`));
    const { config } = await cli.json([
      'configs',
      'update',
      id,
      '--unset',
      'max-tokens,fallback',
      '--unset',
      'temperature',
      '--top-p',
      '0.1',
    ]);
    expect(config).toMatchObject({ model_name: 'grok-4.3', top_p: 0.1 });
    for (const field of ['temperature', 'max_tokens', 'fallback_provider', 'fallback_model'])
      expect(config).not.toHaveProperty(field);
    const rejected = await cli(['configs', 'update', id, '--unset', 'model']);
    expect([rejected.code, rejected.stderr]).toEqual([
      2,
      expect.stringContaining('--unset model  must be one of fallback,'),
    ]);
  });

  it('create writes nothing and reports it with --dry-run', async () => {
    const agent = await newAgent();
    const dryRun = await cli(['configs', 'create', agent, '--model', 'grok/grok-4.3', '--dry-run']);
    expect(dryRun.stdout).toMatch(
      new RegExp(`^dry run at revision \\d+, nothing was written: config of ${agent} would be created\n`),
    );
    expect((await cli.json(['configs', 'list', '--agent', agent])).configs).toEqual([]);
  });

  it('create prints the findings after the result', async () => {
    const agent = await newAgent();
    const { stdout } = await cli([
      'configs',
      'create',
      agent,
      '--model',
      'grok/grok-4.3',
      '--fallback',
      'openai/gpt-5.4',
      '--temperature',
      '0.3',
    ]);
    expect(stdout).toMatch(
      /^created config \d+ of \S+ at revision \d+\nSEVERITY +WHERE +FIELD +FINDING\nwarning +hop 1 +temperature +\S/,
    );
  });

  it('update and delete are rejected when --etag is stale', async () => {
    const id = String(await newConfig(await newAgent()));
    const { etag } = (await cli.json(['configs', 'get', id])).config;
    await cli.json(['configs', 'update', id, '--temperature', '0.1', '--etag', etag]);
    for (const args of [
      ['update', id, '--temperature', '0.2'],
      ['delete', id],
    ]) {
      const { code, stderr } = await cli(['configs', ...args, '--etag', etag]);
      expect([code, stderr]).toEqual([
        1,
        expect.stringMatching(/^agentllm: Config \d+ has changed since this etag was read/),
      ]);
    }
    // This is the agent's last config: the finding names the model that the agent uses from now on.
    expect((await cli(['configs', 'delete', id])).stdout).toMatch(
      new RegExp(`^deleted config ${id} at revision \\d+\n[^]*no enabled config`),
    );
  });

  it('create is applied once when it is repeated with the same request id', async () => {
    const agent = await newAgent();
    const args = [
      'configs',
      'create',
      agent,
      '--model',
      'grok/grok-4.3',
      '--request-id',
      '6f9619ff-8b86-4d01-b42d-00cf4fc964ff',
    ];
    const [first, second] = [await cli(args), await cli(args)];
    expect(second.stdout).toBe(first.stdout);
    expect((await cli.json(['configs', 'list', '--agent', agent])).configs).toHaveLength(1);
  });

  it('get waits for --min-revision and fails when the revision is not reached', async () => {
    const { revision } = await cli.json(['configs', 'update', '8', '--max-tokens', '2000']);
    expect(
      (await cli.json(['configs', 'get', '8', '--min-revision', String(revision)])).revision,
    ).toBeGreaterThanOrEqual(revision);
    const notReached = await cli(['configs', 'get', '8', '--min-revision', '999999', '--timeout', '500']);
    expect(notReached.code).toBe(4);
  });
});

describe("an agent's chain", () => {
  it('has a primary config that upsert creates and updates', async () => {
    const agent = await newAgent();
    const none = await cli(['configs', 'primary', agent]);
    expect([none.code, none.stderr]).toEqual([
      3,
      expect.stringContaining('(agentllm configs upsert <agent> --model provider/model creates one)'),
    ]);
    expect((await cli(['configs', 'upsert', agent, '--model', 'grok/grok-4.3'])).stdout).toMatch(
      /^created config \d+ of /,
    );
    expect((await cli(['configs', 'upsert', agent, '--temperature', '0.4'])).stdout).toMatch(/^updated config \d+ of /);
    expect((await cli(['configs', 'upsert', agent, '--unset', 'temperature'])).code).toBe(0);
    const { config } = await cli.json(['configs', 'primary', agent]);
    expect(config).toMatchObject({ model_name: 'grok-4.3' });
    expect(config).not.toHaveProperty('temperature');
    expect((await cli(['configs', 'primary', agent])).stdout).toMatch(new RegExp(`^config ${config.id} of ${agent}\n`));
    const invalid = await cli(['configs', 'upsert', agent, '--no-enabled']);
    expect([invalid.code, invalid.stderr]).toEqual([2, expect.stringContaining('--no-enabled  must not be false')]);
  });

  it('is reordered when reorder lists all its config ids', async () => {
    const agent = await newAgent();
    const [a, b] = [await newConfig(agent), await newConfig(agent)];
    const { chain_etag } = (await cli.json(['agents', 'get', agent])).agent;
    const { stdout } = await cli(['configs', 'reorder', agent, String(b), String(a), '--etag', chain_etag]);
    expect(stdout).toMatch(new RegExp(`^reordered the configs of ${agent} at revision \\d+\n`));
    expect(rowsOf(stdout.slice(stdout.indexOf('\n') + 1)).map(({ ID }) => Number(ID))).toEqual([b, a]);
    expect((await cli.json(['configs', 'primary', agent])).config.id).toBe(b);
    expect((await cli(['configs', 'reorder', agent, String(a), String(b), '--etag', chain_etag])).code).toBe(1);
    const invalid = await cli(['configs', 'reorder', agent, String(a), String(a), '8']);
    expect(invalid.code).toBe(2);
    expect(invalid.stderr).toMatch(new RegExp(`\n {2}${a} +${a} is in the list twice\n`));
    expect(invalid.stderr).toMatch(/\n {2}8 +8 is not a config of this agent\n/);
  });

  it('is assigned in bulk atomically, or for the agents that exist with --partial', async () => {
    const [a, b] = [await newAgent(), await newAgent()];
    const all = await cli(['configs', 'bulk', a, b, '--model', 'grok/grok-4.3']);
    expect(all.stdout).toMatch(/^assigned 2 configs at revision \d+\n/);
    const nothing = await cli(['configs', 'bulk', a, 'nobody', '--temperature', '0.1']);
    expect([nothing.code, nothing.stderr]).toEqual([
      3,
      expect.stringMatching(/\n {2}nobody {2}No agent has the name "nobody"/),
    ]);
    const partial = await cli(['configs', 'bulk', a, 'nobody', '--temperature', '0.1', '--partial']);
    expect(partial.code).toBe(1);
    expect(rowsOf(partial.stdout.slice(partial.stdout.indexOf('\n') + 1))).toEqual([
      expect.objectContaining({ AGENT: a, MODEL: 'grok/grok-4.3', RESULT: 'updated' }),
      expect.objectContaining({ AGENT: 'nobody', CONFIG: '-', RESULT: 'rejected: No agent has the name "nobody"' }),
    ]);
    const json = await cli(['configs', 'bulk', a, 'nobody', '--temperature', '0.1', '--partial', '--json']);
    expect([json.code, JSON.parse(json.stdout).results[1]]).toEqual([
      1,
      {
        agent_id: 0,
        agent_name: 'nobody',
        created: false,
        status: { code: 5, message: 'No agent has the name "nobody"' },
      },
    ]);
    const dryRun = await cli(['configs', 'bulk', a, b, '--temperature', '1', '--dry-run']);
    expect(dryRun.stdout).toMatch(/^dry run at revision \d+, nothing was written: 2 configs would be assigned\n/);
    expect((await cli.json(['configs', 'primary', a])).config.temperature).toBe(0.1);
  });
});

describe('agentllm configs validate', () => {
  it('lints a stored config, a change to it and a proposed config', async () => {
    const agent = await newAgent();
    const id = String(await newConfig(agent));
    const stored = await cli(['configs', 'validate', id]);
    expect([stored.code, stored.stdout]).toEqual([
      0,
      expect.stringMatching(
        new RegExp(`^(no findings|accepted, with findings)\n[\\s\\S]*0 +config ${id} +grok/grok-4.3`),
      ),
    ]);
    expect((await cli(['configs', 'validate', '--agent', agent])).code).toBe(0);
    const change = await cli.json(['configs', 'validate', id, '--model', 'openai/gpt-5.4', '--unset', 'temperature']);
    expect(change).toMatchObject({
      acceptable: true,
      hops: [{ provider: 'openai', model_name: 'gpt-5.4', config_id: Number(id) }],
    });
    expect(change.hops[0].parameters).toEqual([]);
    const proposal = await cli.json(['configs', 'validate', '--agent', agent, '--model', 'claude/claude-haiku-4-5']);
    expect(proposal.hops.map((hop: { model_name: string }) => hop.model_name)).toEqual([
      'grok-4.3',
      'claude-haiku-4-5',
    ]);
  });

  it('exits with 1 and writes nothing when there are errors', async () => {
    const id = String(await newConfig(await newAgent()));
    const invalid = await cli(['configs', 'validate', id, '--temperature', '5', '--model', 'opnai/gpt-4o']);
    expect([invalid.code, invalid.stdout]).toEqual([
      1,
      expect.stringMatching(/^rejected\nSEVERITY[\s\S]*error +- +temperature +must be a number between 0 and 2/),
    ]);
    expect((await cli.json(['configs', 'get', id])).config.temperature).toBe(0.7);
  });

  it('is rejected without a target', async () => {
    const { code, stderr } = await cli(['configs', 'validate']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('select what to validate')]);
  });
});

describe('agentllm configs health', () => {
  // No provider is called: the environment of the test has no provider key.
  it('checks one config or all configs of an agent, and prints the last results with --last', async () => {
    const agent = await newAgent();
    const id = await newConfig(agent, '--fallback', 'claude/claude-3-haiku-20240307');
    expect((await cli(['configs', 'health', '--agent', agent, '--last'])).stdout).toMatch(/^never checked;/);
    const single = await cli(['configs', 'health', String(id)]);
    expect(single.code).toBe(1);
    expect(rowsOf(single.stdout).map((row) => [row['CONFIG'], row['MODEL'], row['STATUS']])).toEqual([
      [String(id), 'grok/grok-4.3', 'no-key'],
      [String(id), 'claude/claude-3-haiku-20240307', 'no-key'],
    ]);
    await newConfig(agent, '--no-enabled');
    const all = await cli(['configs', 'health', '--agent', agent]);
    expect(all.stderr).toMatch(/^1\/2 {2}config \d+ of \S+: no-key/);
    expect(rowsOf(all.stdout)).toHaveLength(3);
    const last = await cli(['configs', 'health', '--agent', agent, '--last', '--json']);
    expect([last.code, last.stderr, JSON.parse(last.stdout).health.length]).toEqual([1, '', 2]);
    const ok = await cli(['configs', 'health', '--agent', agent, '--last', '--status', 'ok', '--json']);
    expect([ok.code, JSON.parse(ok.stdout).health]).toEqual([0, []]);
  });

  it('is rejected with no target or several targets', async () => {
    for (const args of [[], ['8', '--all'], ['--all', '--status', 'ok']]) {
      const { code, stdout } = await cli(['configs', 'health', ...args]);
      expect([code, stdout]).toEqual([2, '']);
    }
    expect((await cli(['configs', 'health', '4711'])).code).toBe(3);
  });
});

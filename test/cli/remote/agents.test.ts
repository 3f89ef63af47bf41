import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { unique } from '../../support/service.js';
import { rowsOf, useCli, useDirectory } from '../support.js';

const cli = useCli();
const directory = useDirectory();

async function jsonFile(content: unknown): Promise<string> {
  const file = join(directory(), unique('file'));
  await writeFile(file, JSON.stringify(content));
  return file;
}

describe('agentllm agents', () => {
  it('list prints a table, and one JSON document with --json', async () => {
    const { code, stdout, stderr } = await cli(['agents', 'list', '--type', 'trader']);
    expect([code, stderr]).toEqual([0, '']);
    expect(rowsOf(stdout)[0]).toMatchObject({ ID: '8', NAME: 'trader', TYPE: 'trader', ACTIVE: 'yes' });
    const { agents, revision } = await cli.json(['agents', 'list']);
    expect(agents.length).toBeGreaterThanOrEqual(12);
    expect(agents[0]).toMatchObject({ id: 1, is_reserved: true, substitution_policy: 'SUBSTITUTION_POLICY_ANY' });
    expect(agents[0].created_at).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
    expect(agents[0]).not.toHaveProperty('max_tokens');
    expect(revision).toBeTypeOf('number');
    expect((await cli.json(['agents', 'list', '--limit', '5'])).agents).toHaveLength(5);
  });

  it('list reads as many pages as --limit requires', async () => {
    const agents = Array.from({ length: 15 }, (_, at) => ({ agent: { name: `many_${at}`, agent_type: 'many' } }));
    for (const request of agents) await cli.service().agents.createAgent(request);
    const listed = await cli.json(['agents', 'list', '--type', 'many', '--limit', '12']);
    expect(listed.agents.map((agent: { name: string }) => agent.name)).toEqual(
      agents.slice(0, 12).map(({ agent }) => agent.name),
    );
    expect((await cli(['agents', 'list', '--limit', '0'])).code).toBe(2);
  });

  it('list prints an empty result when no agent matches', async () => {
    const { code, stdout } = await cli(['agents', 'list', '--type', 'nothing']);
    expect([code, stdout]).toEqual([0, 'no agent matches\n']);
    expect((await cli.json(['agents', 'list', '--type', 'nothing'])).agents).toEqual([]);
  });

  it('get accepts the name or the id of an agent', async () => {
    const byName = await cli(['agents', 'get', 'trader']);
    expect(byName.stdout).toMatch(/^agent trader \(id 8\)\n {2}type {13}trader\n/);
    expect((await cli(['agents', 'get', '8'])).stdout).toBe(byName.stdout);
    expect((await cli.json(['agents', 'get', '8'])).agent.name).toBe('trader');
  });

  it('create, update and delete change an agent and print the result', async () => {
    const name = unique('scout');
    const created = await cli([
      'agents',
      'create',
      name,
      '--type',
      'analyst',
      '--max-tokens',
      '9',
      '--description',
      'looks',
    ]);
    expect(created.stdout).toMatch(
      new RegExp(`^created agent ${name} \\(id \\d+\\) at revision \\d+\n[^]*no enabled config`),
    );
    const updated = await cli.json([
      'agents',
      'update',
      name,
      '--no-active',
      '--substitution',
      'same-model',
      '--unset',
      'max-tokens',
    ]);
    expect(updated.agent).toMatchObject({
      is_active: false,
      substitution_policy: 'SUBSTITUTION_POLICY_SAME_MODEL',
      description: 'looks',
    });
    expect(updated.agent).not.toHaveProperty('max_tokens');
    const dryRun = await cli(['agents', 'delete', name, '--dry-run']);
    expect(dryRun.stdout).toMatch(
      new RegExp(`^dry run at revision \\d+, nothing was written: agent ${name} with 0 configs would be deleted\n$`),
    );
    const deleted = await cli(['agents', 'delete', name, '--reason', 'was a trial']);
    expect(deleted.stdout).toMatch(new RegExp(`^deleted agent ${name} with 0 configs at revision \\d+\n$`));
    expect((await cli(['agents', 'get', name])).code).toBe(3);
  });

  it('update renames an agent, and the prefix name: selects a numeric name', async () => {
    const [name, number] = [unique('old'), String(Math.floor(Math.random() * 1e9))];
    await cli.json(['agents', 'create', name, '--type', 'analyst']);
    await cli.json(['agents', 'update', name, '--name', number]);
    expect((await cli.json(['agents', 'get', `name:${number}`])).agent.name).toBe(number);
  });

  it('create and update read an agent from a file in the format of get --json', async () => {
    const name = unique('filed');
    const file = await jsonFile({ name, agentType: 'analyst', temperature: 0.1, metadata_json: '{"a":1}' });
    await cli.json(['agents', 'create', 'ignored', '-f', file].filter((word) => word !== 'ignored').concat(name));
    const { agent } = await cli.json(['agents', 'get', name]);
    expect(agent).toMatchObject({ temperature: 0.1, metadata_json: '{"a":1}' });
    // update accepts the output of get: null clears a field, an absent field is kept, options take precedence.
    const changed = await jsonFile({ agent: { ...agent, metadata_json: null, temperature: 0.3 }, revision: 1 });
    const updated = await cli.json(['agents', 'update', name, '-f', changed, '--role', 'scout']);
    expect(updated.agent).toMatchObject({ temperature: 0.3, role: 'scout', agent_type: 'analyst' });
    expect(updated.agent).not.toHaveProperty('metadata_json');
    // The etag in the file is stale.
    expect((await cli(['agents', 'update', name, '-f', changed])).stderr).toMatch(
      /^agentllm: Agent \d+ has changed since/,
    );
  });

  it('update reads a file from standard input and reports its errors', async () => {
    const stdin = JSON.stringify({ description: 'piped' });
    expect((await cli.json(['agents', 'update', 'trader', '-f', '-'], { stdin })).agent.description).toBe('piped');
    for (const [text, problem] of [
      ['{', 'must be JSON'],
      ['[]', 'must be a JSON object'],
      ['{"descripton":"x"}', 'Agent: key "descripton" is unknown'],
      ['{"temperature":"warm"}', 'Agent.temperature: expected number'],
    ] as const) {
      const { code, stderr } = await cli(['agents', 'update', 'trader', '-f', '-'], { stdin: text });
      expect([code, stderr]).toEqual([2, expect.stringContaining(`--from-file -  ${problem}`)]);
    }
    const rejected = await cli(['agents', 'update', 'trader', '-f', '-'], { stdin: '{"temperature":5}' });
    expect(rejected.stderr).toContain('--from-file -  agent.temperature must be a number between 0 and 2');
    const { code, stderr } = await cli(['agents', 'update', 'trader', '-f', join(directory(), 'none')]);
    expect([code, stderr]).toEqual([2, expect.stringContaining('does not exist')]);
  });

  it('update is rejected when no field is set', async () => {
    const { code, stderr } = await cli(['agents', 'update', 'trader', '--reason', 'none']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('nothing to change')]);
  });

  it('delete names the option to use when the agent cannot be deleted', async () => {
    const name = unique('busy');
    await cli.json(['agents', 'create', name, '--type', 'analyst']);
    await cli.json(['configs', 'create', name, '--model', 'openai/gpt-4o']);
    const rejected = await cli(['agents', 'delete', name]);
    expect([rejected.code, rejected.stderr]).toEqual([1, expect.stringContaining('(use --cascade)')]);
    expect((await cli(['agents', 'delete', name, '--cascade'])).stdout).toContain(
      `deleted agent ${name} with 1 config at`,
    );
    expect((await cli(['agents', 'delete', 'trader'])).stderr).toContain('agentllm agents update <agent> --no-active');
  });

  it('get and list escape control characters and align wide characters', async () => {
    const name = unique('漢字');
    await cli.json(['agents', 'create', name, '--type', 'wide', '--description', '\x1b[31mred\nline\u202e']);
    const { stdout } = await cli(['agents', 'get', name]);
    expect(stdout).toContain('\\u{1b}[31mred\\nline\\u{202e}');
    const table = (await cli(['agents', 'list', '--type', 'wide'])).stdout.split('\n');
    // Each of the two wide characters takes two columns, so the offset in characters is smaller by 2.
    expect((table[0] ?? '').indexOf('TYPE')).toBe((table[1] ?? '').indexOf('wide') + 2);
    const json = await cli(['agents', 'get', name, '--json']);
    expect(JSON.parse(json.stdout).agent.description).toBe('\x1b[31mred\nline\u202e');
    expect(json.stdout).not.toContain('\x1b');
  });
});

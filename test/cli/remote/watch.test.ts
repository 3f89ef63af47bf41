import { type AddressInfo, createServer } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { CatalogueItem, WatchedAgent } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { changeRecordOfDiff, type WatchDiff, WatchState } from '../../../src/cli/remote/watch_diff.js';
import { agentllm, startCommand, useDirectories } from '../../support/command.js';
import { freePort } from '../../support/ports.js';
import { runCommand } from '../../support/run_command.js';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();
const directories = useDirectories();
const running: ReturnType<typeof agentllm>[] = [];
afterEach(() => {
  for (const { child } of running.splice(0)) child.kill('SIGKILL');
});

/** Starts a watch in a separate process and waits until the watch is open. */
async function startWatch(args: readonly string[] = [], port = cli.service().port) {
  const command = agentllm(['watch', ...args], { AGENTLLM_ADDRESS: `127.0.0.1:${port}` });
  running.push(command);
  await command.untilOutput(/^watching/m);
  return command;
}

const set = (temperature: number, ...more: string[]) =>
  cli.json(['configs', 'upsert', 'trader', '--temperature', String(temperature), ...more]);

describe('agentllm watch', () => {
  it('prints each change with actor, method and reason until --count is reached', async () => {
    await set(0.7);
    const watch = await startWatch(['--count', '2']);
    const { revision } = await set(0.2, '--reason', 'calmer', '--fallback', 'claude/claude-3-haiku-20240307');
    await cli.json(['configs', 'bulk', 'trader', 'market_analyst', '--temperature', '0.1']);
    const { code, stdout, stderr } = await watch.ended;
    expect([code, stderr]).toEqual([0, expect.stringMatching(/^watching all 12 agents from revision \d+\n$/)]);
    const [head, change, , ...bulk] = stdout.trimEnd().split('\n');
    expect(head).toMatch(
      new RegExp(`^\\d{4}-.*Z {2}revision ${revision} {2}anonymous {2}UpsertPrimaryConfig {2}"calmer"$`),
    );
    expect(change).toBe('  trader  config 8: fallback none → claude/claude-3-haiku-20240307, temperature 0.7 → 0.2');
    expect(bulk.sort()).toEqual([
      '  market_analyst  config 1: temperature 0.7 → 0.1',
      '  trader          config 8: temperature 0.2 → 0.1',
    ]);
  });

  it('prints created and deleted agents, configs and catalogue items and marks urgent changes', async () => {
    const watch = await startWatch(['--count', '8']);
    await cli.json(['agents', 'create', 'scout', '--type', 'analyst']);
    const { config } = await cli.json(['configs', 'create', 'scout', '--model', 'openai/gpt-4o', '--api-key'], {
      stdin: 'sk',
    });
    await cli.json(['configs', 'update', String(config.id), '--api-key'], { stdin: 'sk-2' });
    await cli.json(['agents', 'update', 'scout', '--name', 'ranger']);
    await cli.json(['agents', 'delete', 'ranger', '--cascade']);
    await cli.json(['providers', 'update', 'grok', '--no-enabled']);
    await cli.json(['credentials', 'create', 'desk', '--provider', 'openai'], { stdin: 'sk' });
    await cli.json(['models', 'update', 'openai/gpt-4o', '--input-price', '2', '--output-price', '10']);
    const { stdout } = await watch.ended;
    expect(stdout.split('\n').filter((line) => line.startsWith('  '))).toEqual([
      '  scout  agent created',
      `  scout  config ${config.id} openai/gpt-4o created`,
      `  scout  config ${config.id}: API key replaced (urgent)`,
      '  ranger  agent: name scout → ranger',
      '  ranger  agent deleted or renamed (urgent)',
      '  catalogue  provider grok: enabled yes → no (urgent)',
      '  keys  credential desk created',
      expect.stringMatching(/^ {2}catalogue {2}model openai\/gpt-4o: .*input USD\/M 2.5 → 2/),
    ]);
  });

  it('prints one JSON line per revision with a resume token for a later watch', async () => {
    const watch = await startWatch(['trader', '--json', '--count', '1']);
    const { revision } = await set(0.5);
    const line = JSON.parse((await watch.ended).stdout);
    expect(line).toMatchObject({
      revision,
      cause: { actor: 'anonymous', method: 'agentllm.v1.AgentLLMConfigService/UpsertPrimaryConfig' },
      changes: [
        { kind: 'config', agent: 'trader', id: 8, action: 'updated', fields: [{ field: 'temperature', after: 0.5 }] },
      ],
    });
    const next = await set(0.6);
    const resumed = await startWatch(['trader', '--since', line.resume_token, '--count', '1']);
    expect((await resumed.ended).stdout).toMatch(
      new RegExp(`revision ${next.revision} [\\s\\S]*config 8 openai/gpt-4 \\(current state\\)`),
    );
  });

  it('exits with 0 on a signal and after --for, and with 1 when --count was not reached', async () => {
    const watch = await startWatch();
    watch.child.kill('SIGINT');
    expect((await watch.ended).code).toBe(0);
    expect((await cli(['watch', '--for', '300'])).code).toBe(0);
    expect((await cli(['watch', '--for', '300', '--count', '1'])).code).toBe(1);
  });

  it('waits when an agent does not exist yet', async () => {
    const watch = await startWatch(['newcomer', '--count', '1']);
    await watch.untilOutput(/there is no agent newcomer yet/);
    await cli.json(['agents', 'create', 'newcomer', '--type', 'analyst']);
    expect((await watch.ended).stdout).toContain('  newcomer  agent created');
  });

  it('reports an invalid command line before it opens the watch', async () => {
    expect(await cli(['watch', '--since', 'nonsense'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('resume_token'),
    });
    expect(await cli(['watch', 'trader', '--all'])).toMatchObject({ code: 2 });
    expect(await cli(['watch', '--count', '0'])).toMatchObject({ code: 2 });
    expect(await cli(['watch', '--address', '127.0.0.1:1', '--timeout', '500'])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('no service is reachable'),
    });
  });

  it('ends after --timeout when the service accepts the connection and does not respond', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void silent.close());
    await new Promise((resolve) => silent.once('listening', resolve));
    const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    expect(await cli(['watch', '--address', address, '--timeout', '500'])).toMatchObject({
      code: 4,
      stderr: expect.stringContaining(`${address} (from --address) did not respond within 500 ms`),
    });
  });

  it('ends with the next change when the reader of its output has ended', async () => {
    const watch = await startWatch();
    watch.child.stdout?.destroy();
    await set(0.35);
    expect((await watch.ended).code).toBe(0);
  });

  it('ends with the error of the service when the caller has lost access', async () => {
    const env = { DATA_DIR: await directories.started() };
    const service = await startCommand(env);
    const watch = await startWatch([], service.port);
    // From the first token on, a caller without a token has no access.
    expect((await runCommand(['token', 'create', '--role', 'admin'], env)).code).toBe(0);
    const { code, stderr } = await watch.ended;
    expect([code, stderr]).toEqual([1, expect.stringContaining('This service requires a token')]);
    service.child.kill('SIGTERM');
    await service.ended;
  });

  it('reconnects after a restart of the service and prints the changes made in between', async () => {
    const env = { DATA_DIR: await directories.started(), GRPC_ADDRESS: `127.0.0.1:${await freePort()}` };
    const service = await startCommand(env);
    const watch = await startWatch(['trader', '--count', '1'], service.port);
    service.child.kill('SIGTERM');
    await watch.untilOutput(/connection lost .*; reconnecting/);
    await service.ended;
    const restarted = await startCommand(env);
    const address = ['--address', `127.0.0.1:${service.port}`];
    await cli.json(['configs', 'upsert', 'trader', '--temperature', '0.9', ...address]);
    const { code, stdout, stderr } = await watch.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/connection lost [\s\S]*reconnected, without a gap/);
    expect(stdout).toContain('config 8: temperature 0.7 → 0.9');
    restarted.child.kill('SIGTERM');
    await restarted.ended;
  });
});

describe('the output of a snapshot after a gap', () => {
  const agent = (name: string, id: number, more: object = {}) =>
    WatchedAgent.fromPartial({ name, id, agent: { id, name, agent_type: 'analyst', ...more } });
  const tombstone = (name: string, id: number) => WatchedAgent.fromPartial({ name, id });
  const provider = (name: string, enabled: boolean) => CatalogueItem.fromPartial({ provider: { name, enabled } });
  const batch = (agents: WatchedAgent[], catalogue: CatalogueItem[], snapshot: boolean) => ({
    ...{ revision: 1n, token: '', cause: undefined, agents, catalogue, snapshot },
  });
  const describeChanges = (diffs: WatchDiff[]) =>
    diffs.map(changeRecordOfDiff).map(({ subject, what }) => `${subject}: ${what}`);

  it('contains the differences, including deletions that the watch did not send', () => {
    const state = new WatchState();
    expect(state.apply(batch([agent('a', 1), agent('b', 2), agent('c', 3)], [provider('p', true)], true))).toEqual([]);
    expect(describeChanges(state.apply(batch([tombstone('a', 1), agent('d', 1)], [], false)))).toEqual([
      'd: agent: name a → d',
    ]);
    const secondSnapshot = batch([agent('b', 2), agent('d', 1, { is_active: true })], [provider('q', true)], true);
    expect(describeChanges(state.apply(secondSnapshot)).sort()).toEqual([
      'c: agent deleted or renamed',
      'catalogue: provider p deleted',
      'catalogue: provider q created',
      'd: agent: is_active none → yes',
    ]);
    expect(state.apply(secondSnapshot)).toEqual([]);
  });
});

describe('agentllm watchers', () => {
  it('prints each watcher with its agents and its lag', async () => {
    const watch = await startWatch(['trader']);
    const row = { NAME: 'agentllm watch', AGENTS: 'trader', LAG: '0', STALE: 'no' };
    // The watcher acknowledges a revision shortly after it has applied it.
    await vi.waitFor(
      async () =>
        expect(rowsOf((await cli(['watchers', '--agent', 'trader'])).stdout)).toEqual([expect.objectContaining(row)]),
      { timeout: 30_000, interval: 200 },
    );
    expect((await cli(['watchers', '--stale'])).stdout).toBe('no process matches\n');
    watch.child.kill('SIGINT');
    await watch.ended;
  });
});

describe('--wait', () => {
  it('reports the processes that have applied a write', async () => {
    const first = await cli(['configs', 'upsert', 'social_analyst', '--temperature', '0.3', '--wait', '1000']);
    expect(first.stdout).toMatch(
      /^updated config \d+ of social_analyst at revision \d+\nno process watches the changed resource\n/,
    );
    await startWatch(['social_analyst']);
    const second = await cli(['configs', 'upsert', 'social_analyst', '--temperature', '0.4', '--wait', '30000']);
    expect(second.stdout).toContain('\napplied by 1 of 1 process\n');
    const { adoption } = await cli.json([
      'agents',
      'update',
      'social_analyst',
      '--description',
      'x',
      '--wait',
      '30000',
    ]);
    expect(adoption).toMatchObject({ complete: true, applied_count: 1, applied: [{ client_name: 'agentllm watch' }] });
  });

  it('names the pending processes and exits with 0 when the timeout is reached', async () => {
    const watch = await startWatch(['news_analyst']);
    watch.child.kill('SIGSTOP');
    const { code, stdout } = await cli(['configs', 'upsert', 'news_analyst', '--temperature', '0.4', '--wait', '500']);
    watch.child.kill('SIGCONT');
    expect(code).toBe(0);
    expect(stdout).toContain('\napplied by 0 of 1 process; pending: agentllm watch\n');
  });

  it('is rejected when it exceeds the maximum of the service', async () => {
    const { code, stderr } = await cli(['configs', 'upsert', 'trader', '--temperature', '0.4', '--wait', '60001']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('--wait 60001  must be 0 to 60 s')]);
  });
});

import { get, request } from 'node:http';
import { describe, expect, it } from 'vitest';
import { agentllm, startCommand, useDirectories } from '../../support/command.js';
import { runCommand } from '../../support/run_command.js';
import { connect, failure } from '../../support/service.js';

const directory = useDirectories();

async function fetchText(port: number, path: string, method = 'GET'): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, path, method }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    call.on('error', reject);
    call.end();
  });
}

describe('agentllm serve', () => {
  it('stops cleanly on Ctrl-C and serves the same data after the next start', async () => {
    const DATA_DIR = await directory();
    const first = await startCommand({ DATA_DIR });
    const clients = connect(first.port);
    const { config } = await clients.configs.upsertPrimaryConfig({
      agent: { name: 'trader' },
      config: { temperature: 0 },
    });
    clients.close();
    first.child.kill('SIGINT');
    const ended = await first.ended;
    expect(ended.stderr).toContain('agentllm has stopped');
    expect(ended.code).toBe(0);

    const second = await startCommand({ DATA_DIR });
    const secondClients = connect(second.port);
    const found = await secondClients.configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(found.config).toEqual(config);
    secondClients.close();
    second.child.kill('SIGTERM');
    expect((await second.ended).code).toBe(0);
  });

  it('names at its start the models that are shut down, with the command that changes them', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    await running.untilOutput(/stop {6}Ctrl-C/);
    const command = 'agentllm configs bulk --all --model openai/gpt-5.6-sol';
    expect(running.output()).toContain(
      `\n  models    openai/gpt-4 was shut down on 2026-10-23; 12 agents use it: ${command}\n  stop `,
    );
    const { code } = await runCommand(command.split(' ').slice(1), { AGENTLLM_ADDRESS: `127.0.0.1:${running.port}` });
    expect(code).toBe(0);
  });

  it('starts a new store with the model of SEED_MODEL, and then names no model', async () => {
    const env = { DATA_DIR: await directory(), SEED_MODEL: 'claude/claude-sonnet-5-5' };
    const running = await startCommand(env);
    await running.untilOutput(/stop {6}Ctrl-C/);
    expect(running.output()).not.toContain('\n  models ');
    const clients = connect(running.port);
    const { config } = await clients.configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(config).toMatchObject({ provider: 'claude', model_name: 'claude-sonnet-5-5', max_tokens: 2000 });
    expect(config?.temperature).toBeUndefined();
    clients.close();
    running.child.kill('SIGINT');
    await running.ended;
    // The setting is not used once the agents exist.
    const next = await startCommand({ ...env, SEED_MODEL: 'openai/gpt-99' });
    expect(next.port).toBeGreaterThan(0);
  });

  it('does not start when SEED_MODEL is not in the catalogue, and says what to do', async () => {
    const DATA_DIR = await directory();
    const { code, stderr } = await agentllm(['serve'], { DATA_DIR, SEED_MODEL: 'openai/gpt-99' }).ended;
    expect(code).toBe(1);
    expect(stderr).toContain('agentllm: SEED_MODEL openai/gpt-99: Invalid model "gpt-99" for openai: ');
    expect(stderr).toContain('agentllm:   agentllm models create openai/gpt-99 adds it to the catalogue\n');
    expect(stderr).toContain('start it without SEED_MODEL first\n');
    const running = await startCommand({ DATA_DIR });
    expect(running.port).toBeGreaterThan(0);
  });

  it('handles the two signals that npm sends for one Ctrl-C as one', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started() });
    running.child.kill('SIGINT');
    running.child.kill('SIGINT');
    const ended = await running.ended;
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain('agentllm has stopped');
  });

  it('closes an open connection when it stops instead of waiting for it', async () => {
    const running = await startCommand({ DATA_DIR: await directory.started(), SHUTDOWN_GRACE_MS: '200' });
    const socket = get({ host: '127.0.0.1', port: running.port });
    socket.on('error', () => {});
    running.child.kill('SIGTERM');
    expect((await running.ended).code).toBe(0);
  });

  it('rejects a second service on the same directory while the first continues', async () => {
    const DATA_DIR = await directory.started();
    const first = await startCommand({ DATA_DIR });
    const second = await agentllm(['serve'], { DATA_DIR }).ended;
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(String(first.child.pid));
    expect(second.stderr).toContain(DATA_DIR);
    expect(second.stderr).not.toContain('    at ');
    const clients = connect(first.port);
    const found = await clients.agents.getAgent({ agent: { name: 'trader' } });
    expect(found.agent?.name).toBe('trader');
    clients.close();
  });

  it.each(['0.0.0.0:0', '[::]:0', '192.0.2.1:0'])(
    'refuses to listen on %s in plaintext without --allow-plaintext',
    async (GRPC_ADDRESS) => {
      for (const flags of [[], ['--allow-anonymous']]) {
        const ended = await agentllm(['serve', ...flags], { DATA_DIR: 'memory:', GRPC_ADDRESS }).ended;
        expect(ended.code).toBe(1);
        expect(ended.stderr).toContain(GRPC_ADDRESS);
        expect(ended.stderr).toContain('--allow-plaintext');
      }
    },
  );

  it.each(['0.0.0.0:0', '[::]:0'])(
    'refuses to listen on %s when no token exists, without --allow-anonymous',
    async (GRPC_ADDRESS) => {
      const env = { DATA_DIR: await directory.started(), GRPC_ADDRESS };
      const ended = await agentllm(['serve', '--allow-plaintext'], env).ended;
      expect(ended.code).toBe(1);
      expect(ended.stderr).toContain(GRPC_ADDRESS);
      expect(ended.stderr).toContain('agentllm token create --role admin');
      expect(ended.stderr).toContain('--allow-anonymous');
    },
  );

  it('listens on a non-loopback address with --allow-plaintext and --allow-anonymous', async () => {
    const flags = ['--allow-plaintext', '--allow-anonymous'];
    const running = await startCommand({ DATA_DIR: await directory.started(), GRPC_ADDRESS: '0.0.0.0:0' }, flags);
    const clients = connect(running.port);
    expect((await failure(clients.configs.getConfig({ id: 0 }))).reason).toBe('INVALID_FIELDS');
    clients.close();
  });

  it('reports every invalid setting on a separate line', async () => {
    const env = { GRPC_ADDRESS: 'nowhere', LOG_LEVEL: 'loud', DATABASE_POOL_SIZE: '-1', DATABASE_URL: 'mysql://x' };
    const ended = await agentllm(['serve'], env).ended;
    expect(ended.code).toBe(1);
    const lines = ended.stderr.trim().split('\n');
    expect(lines).toHaveLength(4);
    for (const name of Object.keys(env)) expect(lines.filter((line) => line.includes(name))).toHaveLength(1);
  });

  it('names the setting when the port is in use', async () => {
    const first = await startCommand({ DATA_DIR: await directory.started() });
    const GRPC_ADDRESS = `127.0.0.1:${first.port}`;
    const ended = await agentllm(['serve'], { DATA_DIR: 'memory:', GRPC_ADDRESS }).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(`GRPC_ADDRESS ${GRPC_ADDRESS} cannot be listened on`);
  });

  it('names the address without the password when PostgreSQL is unavailable', async () => {
    const DATABASE_URL = 'postgres://user:hunter2@127.0.0.1:1/none';
    const ended = await agentllm(['serve'], { DATABASE_URL, DATABASE_WAIT_MS: '500' }).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('nothing listens at 127.0.0.1:1');
    expect(ended.stdout + ended.stderr).not.toContain('hunter2');
  });

  it('serves health, readiness and metrics over HTTP', async () => {
    const running = agentllm(['serve'], { DATA_DIR: await directory.started(), HTTP_ADDRESS: '127.0.0.1:0' });
    const [, text] = await running.untilOutput(/HTTP {6}127\.0\.0\.1:(\d+)/);
    const port = Number(text);
    expect(await fetchText(port, '/healthz')).toMatchObject({ status: 200 });
    expect(await fetchText(port, '/readyz')).toMatchObject({ status: 200 });
    const metrics = await fetchText(port, '/metrics');
    expect(metrics.status).toBe(200);
    expect(metrics.body).toMatch(/^agentllm_revision 3$/m);
    expect(metrics.body).toMatch(/^agentllm_rows\{entity="agent"\} 12$/m);
    expect(await fetchText(port, '/nothing')).toMatchObject({ status: 404 });
    expect(await fetchText(port, '/__proto__')).toMatchObject({ status: 404 });
    expect(await fetchText(port, '/metrics', 'POST')).toMatchObject({ status: 405 });
  });
});

describe('agentllm migrate and seed', () => {
  it('roll one migration back, apply it again, and seed repeatedly', async () => {
    const DATA_DIR = await directory();
    const run = async (...args: string[]) => {
      const ended = await runCommand(args, { DATA_DIR });
      expect(ended.stderr).toBe('');
      expect(ended.code).toBe(0);
      return ended.stdout;
    };
    expect(await run('migrate', 'status')).toMatch(/^current {2}none$/m);
    expect(await run('migrate', 'up')).toContain('applied 0004_add_agent_llm_configs');
    const status = JSON.parse(await run('migrate', 'status', '--json'));
    expect(status).toMatchObject({ pending: [], unknown: [] });
    expect(await run('migrate', 'down')).toBe(`rolled back ${status.current}\n`);
    expect(JSON.parse(await run('migrate', 'status', '--json')).pending).toEqual([status.current]);
    expect(JSON.parse(await run('migrate', 'up', '--json'))).toEqual({ applied: [status.current] });
    expect(await run('migrate', 'up')).toContain('nothing to do');
    expect(await run('migrate', 'history')).toMatch(/^0001_initial +\d{4}-/m);

    const seeded = JSON.parse(await run('seed', '--json'));
    expect(seeded).toMatchObject({ agents: 12, default_configs: 12 });
    expect(seeded.catalogue).toBeGreaterThan(30);
    expect(JSON.parse(await run('seed', '--json'))).toEqual({ catalogue: 0, agents: 0, default_configs: 0 });
    const notice =
      /^openai\/gpt-4 was shut down on 2026-10-23; 12 agents use it: agentllm configs bulk --all --model /m;
    expect(await run('seed')).toMatch(notice);
    const model = 'claude/claude-opus-5-5';
    expect(await run('seed', '--model', model)).toContain(
      `\nEvery agent has a config already; to change the primary configs of all: agentllm configs bulk --all --model ${model}\n`,
    );
  });

  it('seed the model that is given, and refuse one that the catalogue does not have', async () => {
    const DATA_DIR = await directory();
    await runCommand(['migrate', 'up'], { DATA_DIR });
    const seed = (args: string[], env = {}) => runCommand(['seed', ...args], { DATA_DIR, ...env });
    const refused = await seed(['--model', 'claude/claude-opus-99']);
    expect([refused.code, refused.stdout]).toEqual([1, '']);
    const [first, ...commands] = refused.stderr.trimEnd().split('\n');
    expect(first).toMatch(
      /^agentllm: --model claude\/claude-opus-99: Invalid model "claude-opus-99" for claude: did you/,
    );
    expect(commands).toEqual([
      'agentllm:   agentllm models create claude/claude-opus-99 adds it to the catalogue',
      'agentllm:   agentllm providers update claude --allow-unknown-models allows every model of claude',
    ]);
    const seeded = await seed(['--model', 'anthropic/claude-opus-5-5'], { SEED_MODEL: 'openai/gpt-99' });
    expect([seeded.code, seeded.stderr, seeded.stdout]).toEqual([
      0,
      '',
      expect.stringMatching(/^agents +12\ndefault_configs +12\n$/m),
    ]);
    const service = await startCommand({ DATA_DIR });
    const clients = connect(service.port);
    const { config } = await clients.configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(config).toMatchObject({ provider: 'claude', model_name: 'claude-opus-5-5' });
    // The commands of the refusal work, and the next seed accepts the model.
    const AGENTLLM_ADDRESS = `127.0.0.1:${service.port}`;
    for (const line of commands) {
      const [, command = ''] = /^agentllm: {3}agentllm (.*?) (?:adds|allows) /.exec(line) ?? [];
      expect((await runCommand(command.split(' '), { AGENTLLM_ADDRESS })).code).toBe(0);
    }
    await clients.configs.deleteConfig({ id: config?.id as number });
    const next = await seed(['--model', 'claude/claude-opus-99']);
    expect([next.code, next.stdout]).toEqual([0, expect.stringMatching(/^default_configs +1$/m)]);
    clients.close();
  });

  it('restore a deleted default config only when seed is run, not at start', async () => {
    const DATA_DIR = await directory.started();
    const first = await startCommand({ DATA_DIR });
    const clients = connect(first.port);
    const { config } = await clients.configs.getPrimaryConfig({ agent: { name: 'trader' } });
    await clients.configs.deleteConfig({ id: config?.id as number });
    clients.close();
    first.child.kill('SIGINT');
    await first.ended;

    const second = await startCommand({ DATA_DIR });
    const secondClients = connect(second.port);
    const error = await failure(secondClients.configs.getPrimaryConfig({ agent: { name: 'trader' } }));
    expect(error.reason).toBe('NO_ENABLED_CONFIG');
    secondClients.close();
    second.child.kill('SIGINT');
    await second.ended;
    expect(JSON.parse((await runCommand(['seed', '--json'], { DATA_DIR })).stdout).default_configs).toBe(1);
  });

  it('keep the catalogue when the last migration is rolled back and the service is started again', async () => {
    const DATA_DIR = await directory.started();
    const first = await startCommand({ DATA_DIR });
    first.child.kill('SIGINT');
    await first.ended;
    expect((await runCommand(['migrate', 'down'], { DATA_DIR })).code).toBe(0);
    const second = await startCommand({ DATA_DIR });
    const clients = connect(second.port);
    expect((await clients.providers.listProviders({})).providers.map((p) => p.name)).toContain('openai');
    clients.close();
  });

  it('must run before the service starts when MIGRATE_ON_START is off', async () => {
    const DATA_DIR = await directory();
    const ended = await agentllm(['serve'], { DATA_DIR, MIGRATE_ON_START: 'off' }).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('0001_initial');
    expect(ended.stderr).not.toContain('    at ');
  });
});

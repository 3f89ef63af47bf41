import { existsSync } from 'node:fs';
import { chmod, mkdir, rm, stat } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { migrations } from '../../migrations/index.js';
import { agentllm, startCommand, useDirectories } from '../support/command.js';
import { runCommand } from '../support/run_command.js';
import { connect, failure } from '../support/service.js';
import { until } from '../support/until.js';

const directory = useDirectories();
const agent = { name: 'trader' };
/** Settings of a service that does not poll its database, so that it learns of changes only through the socket. */
const NO_POLLING = { POLL_INTERVAL_MS: '60000' };

const socketOf = (dataDir: string) => join(dataDir, '.admin/admin.sock');

async function run(DATA_DIR: string, ...args: string[]) {
  return runCommand(args, { DATA_DIR });
}

async function runJson(DATA_DIR: string, ...args: string[]) {
  const ended = await run(DATA_DIR, ...args, '--json');
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  return JSON.parse(ended.stdout);
}

async function dial(dataDir: string): Promise<Socket> {
  const socket = createConnection({ path: socketOf(dataDir), allowHalfOpen: true });
  socket.on('error', () => undefined);
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}

/** Sends bytes to the socket and returns its responses without keep-alives. */
async function send(dataDir: string, bytes: string | Buffer): Promise<object[]> {
  const socket = await dial(dataDir);
  socket.end(bytes);
  const lines = (await text(socket)).split('\n').filter((line) => line !== '' && line !== '{}');
  return lines.map((line) => JSON.parse(line) as object);
}

describe('local commands while the embedded service runs', () => {
  it('print its migrations, and a seed is immediately visible in the service', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ...NO_POLLING });
    expect(await runJson(DATA_DIR, 'migrate', 'status')).toMatchObject({ pending: [], unknown: [] });
    const history: { name: string }[] = await runJson(DATA_DIR, 'migrate', 'history');
    expect(history.map(({ name }) => name)).toEqual(migrations.map(({ name }) => name));
    expect((await run(DATA_DIR, 'migrate', 'history')).stdout).toMatch(/^MIGRATION +APPLIED\n0001_initial +\d{4}-/);

    const clients = connect(service.port);
    const { config } = await clients.configs.getPrimaryConfig({ agent });
    await clients.configs.deleteConfig({ id: config?.id as number });
    expect((await failure(clients.configs.getPrimaryConfig({ agent }))).reason).toBe('NO_ENABLED_CONFIG');
    expect(await runJson(DATA_DIR, 'seed')).toEqual({ catalogue: 0, agents: 0, default_configs: 1 });
    expect((await clients.configs.getPrimaryConfig({ agent })).config?.agent_id).toBe(config?.agent_id);
    clients.close();
  });

  it('renew the identity of the store, after which earlier etags are stale', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR, ...NO_POLLING });
    const clients = connect(service.port);
    const before = (await clients.configs.getPrimaryConfig({ agent })).config;
    const renewed: { identity: string; revision: number } = await runJson(DATA_DIR, 'store', 'renew');
    const after = (await clients.configs.getPrimaryConfig({ agent })).config;
    expect(after?.etag).not.toBe(before?.etag);
    expect(after?.etag.startsWith(`${renewed.identity.slice(0, 8)}-${before?.revision}`)).toBe(true);
    expect({ ...after, etag: '' }).toEqual({ ...before, etag: '' });
    const change = { id: before?.id as number, temperature: 0.1 };
    const rejection = await failure(
      clients.configs.updateConfig({ config: { ...change, etag: before?.etag as string } }),
    );
    expect(rejection.reason).toBe('STALE_ETAG');
    const written = await clients.configs.updateConfig({ config: { ...change, etag: after?.etag as string } });
    expect(Number(written.revision)).toBe(renewed.revision + 1);
    clients.close();
  });

  it('are rejected with the next step when they would replace the open database', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    for (const command of ['migrate up', 'migrate down', 'restore /nowhere']) {
      const ended = await run(DATA_DIR, ...command.split(' '));
      expect(ended).toMatchObject({ code: 1, stdout: '' });
      expect(ended.stderr).toMatch(/^agentllm: The service runs .* Stop it first, then run agentllm (migrate|restore)/);
      expect(ended.stderr).toContain(`process ${service.child.pid}`);
      expect(ended.stderr.trim().split('\n')).toHaveLength(1);
    }
    expect((await runJson(DATA_DIR, 'migrate', 'status')).pending).toEqual([]);
  });

  it('reach the service when the path of its directory is longer than a socket address', async () => {
    const DATA_DIR = join(await directory(), 'd'.repeat(120), 'e'.repeat(60));
    await startCommand({ DATA_DIR });
    expect(existsSync(socketOf(DATA_DIR))).toBe(true);
    expect(await runJson(DATA_DIR, 'seed')).toMatchObject({ agents: 0 });
    expect((await run(DATA_DIR, 'migrate', 'up')).stderr).toContain('Stop it first');
  });

  it('affect only their own service when two services run on two directories', async () => {
    const [one, other] = [await directory.started(), await directory.started()];
    const services = [
      await startCommand({ DATA_DIR: one, ...NO_POLLING }),
      await startCommand({ DATA_DIR: other, ...NO_POLLING }),
    ];
    const clients = services.map(({ port }) => connect(port));
    const etags = () =>
      Promise.all(clients.map(async (c) => (await c.configs.getPrimaryConfig({ agent })).config?.etag.slice(0, 8)));
    const [first, second] = await etags();
    const { identity } = await runJson(other, 'store', 'renew');
    expect(await etags()).toEqual([first, identity.slice(0, 8)]);
    expect(identity.slice(0, 8)).not.toBe(second);
    for (const c of clients) c.close();
  });
});

describe('the admin socket', () => {
  it('is accessible only to its owner, also in an existing directory, and is removed after a clean stop', async () => {
    const DATA_DIR = await directory();
    await mkdir(join(DATA_DIR, '.admin'));
    await chmod(join(DATA_DIR, '.admin'), 0o777);
    const service = await startCommand({ DATA_DIR });
    expect((await stat(join(DATA_DIR, '.admin'))).mode & 0o777).toBe(0o700);
    expect((await stat(socketOf(DATA_DIR))).mode & 0o777).toBe(0o600);
    service.child.kill('SIGTERM');
    expect((await service.ended).code).toBe(0);
    expect(existsSync(socketOf(DATA_DIR))).toBe(false);
    expect((await runJson(DATA_DIR, 'migrate', 'status')).pending).toEqual([]);
  });

  it('remains after kill -9, does not block commands, and is replaced by the next start', async () => {
    const DATA_DIR = await directory.started();
    const killed = await startCommand({ DATA_DIR });
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(existsSync(socketOf(DATA_DIR))).toBe(true);
    expect((await runJson(DATA_DIR, 'migrate', 'status')).pending).toEqual([]);
    const next = await startCommand({ DATA_DIR });
    expect((await run(DATA_DIR, 'migrate', 'up')).stderr).toContain(`process ${next.child.pid}`);
  });

  it('responds to invalid requests with an error while the service continues', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    const invalidRequest = (message: RegExp) => [{ err: expect.stringMatching(message) }, { exit: 2 }];
    const request = (command: unknown, options?: unknown) => `${JSON.stringify({ command, options })}\n`;
    expect(await send(DATA_DIR, 'what?\n')).toEqual(invalidRequest(/not JSON/));
    expect(await send(DATA_DIR, '\n')).toEqual(invalidRequest(/not JSON/));
    expect(await send(DATA_DIR, '')).toEqual(invalidRequest(/a line of at most/));
    expect(await send(DATA_DIR, '{"command":"seed"}')).toEqual(invalidRequest(/a line of at most/));
    expect(await send(DATA_DIR, 'null\n')).toEqual(invalidRequest(/must be/));
    expect(await send(DATA_DIR, request(['seed']))).toEqual(invalidRequest(/must be/));
    expect(await send(DATA_DIR, request('seed', 'json'))).toEqual(invalidRequest(/must be/));
    expect(await send(DATA_DIR, request('c'.repeat(200)))).toEqual(invalidRequest(/must be/));
    expect(await send(DATA_DIR, Buffer.from([0, 255, 10, 13]))).toEqual(invalidRequest(/not JSON/));
    for (const command of ['', 'serve', '__proto__', 'constructor', 'seed; rm -rf'])
      expect(await send(DATA_DIR, request(command))).toEqual([
        { err: expect.stringContaining('does not have the command') },
        { exit: 1 },
      ]);
    for (const options of [{}, { file: 'relative' }, { file: 7 }, { file: '/tmp/x', force: 'yes' }])
      expect(await send(DATA_DIR, request('backup', options))).toEqual([
        { err: expect.stringContaining('options of backup') },
        { exit: 1 },
      ]);
    const status = await send(DATA_DIR, `${request('migrate status', { json: true })}and more\nthat is ignored`);
    expect(status).toEqual([{ out: expect.stringContaining('"pending":[]') }, { exit: 0 }]);
    const clients = connect(service.port);
    expect((await clients.configs.getPrimaryConfig({ agent })).config).toBeDefined();
    clients.close();
  });

  it('tolerates endless lines and clients that send nothing, disconnect or read nothing', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    const endless = await dial(DATA_DIR);
    const closed = new Promise((resolve) => endless.once('close', resolve));
    const flood = setInterval(() => endless.write(Buffer.alloc(256 * 1024, 'a')), 1);
    await closed;
    clearInterval(flood);

    const silent = await Promise.all(Array.from({ length: 20 }, () => dial(DATA_DIR)));
    const nonReading = await dial(DATA_DIR);
    nonReading.pause();
    nonReading.write('{"command":"migrate history","options":{}}\n');
    for (let round = 0; round < 20; round += 1) {
      const socket = await dial(DATA_DIR);
      socket.write(round % 2 ? '{"command":"seed"}\n' : '{"comm');
      socket.destroy();
    }
    expect(await runJson(DATA_DIR, 'seed')).toEqual({ catalogue: 0, agents: 0, default_configs: 0 });
    await Promise.all(silent.map((socket) => new Promise((resolve) => socket.once('end', resolve).resume())));
    for (const socket of [...silent, nonReading]) socket.destroy();
    const clients = connect(service.port);
    expect((await clients.configs.getPrimaryConfig({ agent })).config).toBeDefined();
    clients.close();
    service.child.kill('SIGTERM');
    const ended = await service.ended;
    expect(ended.code).toBe(0);
    expect(ended.stderr).not.toMatch(/"level":[56]0/);
  });

  it('completes a running command before the service stops', async () => {
    const DATA_DIR = await directory.started();
    const service = await startCommand({ DATA_DIR });
    const file = join(await directory(), 'while.backup');
    const backup = agentllm(['backup', file], { DATA_DIR });
    await backup.untilOutput(/copying/);
    service.child.kill('SIGTERM');
    expect((await backup.ended).code).toBe(0);
    expect((await service.ended).code).toBe(0);
    expect((await stat(file)).size).toBeGreaterThan(1e6);
  });

  it('is reported as unresponsive with the pid within 20 s when the service is stopped or has no socket', async () => {
    const [stopped, older] = [await directory.started(), await directory.started()];
    const services = [await startCommand({ DATA_DIR: stopped }), await startCommand({ DATA_DIR: older })];
    services[0]?.child.kill('SIGSTOP');
    await rm(socketOf(older));
    const startedAt = performance.now();
    const commands = [stopped, older].map((DATA_DIR) => agentllm(['seed'], { DATA_DIR }).ended);
    const ended = await Promise.all(commands);
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    for (const [at, { code, stderr, stdout }] of ended.entries()) {
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toContain(`No response from process ${services[at]?.child.pid}`);
      expect(stderr.trim().split('\n')).toHaveLength(1);
    }
    services[0]?.child.kill('SIGCONT');
    expect(await runJson(stopped, 'seed')).toMatchObject({ agents: 0 });
  });

  it('is awaited by a command while the service starts', async () => {
    const DATA_DIR = await directory();
    const service = agentllm(['serve'], { DATA_DIR });
    await service.untilOutput(/is starting/);
    await until(() => ['pg.new', 'pg'].some((name) => existsSync(join(DATA_DIR, name))), 'the first start has begun');
    expect((await run(DATA_DIR, 'migrate', 'down')).stderr).toContain(`process ${service.child.pid}`);
  });
});

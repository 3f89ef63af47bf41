import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ServerCredentials } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { useDirectories } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { FakeLeases } from './fake_leases.js';
import { agent, config, type FakeWatch, startFakeWatch } from './fake_watch.js';
import { type Certificates, makeCertificates, run } from './support.js';

/*
 * What keeps a process alive: a resident client does not, however long its stream stands; who waits for something does.
 */

let made: Certificates;
beforeAll(async () => {
  made = await makeCertificates();
});
const directories = useDirectories();

const HOLD = "import { connect } from 'CLIENT'; const client = connect({ ...OPTIONS, agents: ['trader'] });";

/** Runs a program against a service; how long it took, and what it said. */
async function program(code: string, options: object): Promise<{ ms: number; said: string }> {
  const file = join(await directories(), 'program.mjs');
  const client = pathToFileURL(packageFile('src/client/index.ts')).href;
  await writeFile(file, `${HOLD}\n${code}`.replace('CLIENT', client).replaceAll('OPTIONS', JSON.stringify(options)));
  const began = performance.now();
  const { stdout } = await run(process.execPath, ['--import', 'tsx', file], { cwd: packageFile('.'), timeout: 30_000 });
  return { ms: performance.now() - began, said: stdout.trim() };
}

async function startService(credentials?: ServerCredentials): Promise<FakeWatch> {
  const fake = await startFakeWatch(0, credentials);
  fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)]);
  return fake;
}

describe('a process with a resident client', () => {
  const resolves = `await client.ready();
    const ended = performance.now();
    process.on('exit', () => console.log(client.agent('trader').resolve().hops.length, performance.now() - ended < 1_000));`;

  it('ends when its work is done, with the stream open', async () => {
    const { address } = await startService();
    expect((await program(resolves, { address })).said).toBe('1 true');
  });

  it('does so with TLS', async () => {
    const pair = { cert_chain: made.server.cert, private_key: made.server.key };
    const fake = await startService(ServerCredentials.createSsl(null, [pair]));
    const tls = { ca: String(made.ca), serverName: 'agentllm.test' };
    expect((await program(resolves, { address: fake.address, tls })).said).toBe('1 true');
  });

  it('does so while it tries to connect', async () => {
    const { said } = await program("process.on('exit', () => console.log(client.state.status));", {
      address: `127.0.0.1:${await freePort()}`,
    });
    expect(said).toBe('CONNECTING');
  });

  it('does so while it waits for a token', async () => {
    const { address } = await startService();
    const code = `const other = connect({ ...OPTIONS, agents: 'all', token: () => new Promise(() => {}) });
      setTimeout(() => console.log(other.state.status), 200);`;
    const { said, ms } = await program(code, { address });
    expect(said).toBe('CONNECTING');
    expect(ms).toBeLessThan(8_000);
  });

  it('lives for its calls, beside the stream', async () => {
    const { address } = await startService();
    const code = 'await client.ready(); console.log((await client.watchers.listWatchers()).watchers.length);';
    expect((await program(code, { address })).said).toBe('0');
  });

  it('lives until it is closed, for those who wait for that', async () => {
    const { address } = await startService();
    const code = "await client.ready(); await client[Symbol.asyncDispose](); console.log('closed');";
    expect((await program(code, { address })).said).toBe('closed');
  });

  it('lives for a loop over changes', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => {
      stream.start().snapshot(10, [agent('trader', 1)]);
      setTimeout(() => stream.change(11, [agent('trader', 11)]), 1_500);
    };
    const code =
      'for await (const { revision } of client.changes()) if (revision === 11n) { console.log("11"); break; }';
    const { said, ms } = await program(code, { address: fake.address });
    expect(said).toBe('11');
    expect(ms).toBeGreaterThan(1_500);
  });

  const leasing = async (leaseMs: number) => {
    const fake = await startFakeWatch();
    const leases = new FakeLeases(fake);
    leases.keys = [{ config_id: 8, key: 'sk-leased' }];
    const configs = [config(8, 1, { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' })];
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1, { configs })]);
    return { leases, options: { address: fake.address, leaseMs } };
  };

  it('lives for a key that it waits for', async () => {
    const { leases, options } = await leasing(600_000);
    leases.gate = new Promise((resolve) => setTimeout(resolve, 2_500));
    const code = "await client.ready(); console.log(await client.agent('trader').apiKey());";
    expect((await program(code, options)).said).toBe('sk-leased');
  });

  it('does not live for one that is renewed ahead', async () => {
    const { leases, options } = await leasing(1_000);
    const code = `await client.ready();
      const key = () => client.agent('trader').apiKey();
      await key();
      await key();
      await new Promise((go) => setTimeout(go, 900));
      const ended = performance.now();
      process.on('exit', () => console.log(performance.now() - ended < 1_000));`;
    const running = program(code, options);
    while (leases.requests.length === 0) await new Promise((go) => setTimeout(go, 5));
    leases.gate = new Promise(() => {});
    expect((await running).said).toBe('true');
    expect(leases.requests).toHaveLength(2);
  });

  it('lives for ready(), until its time is over', async () => {
    const code = 'console.log((await client.ready(1_000).catch((error) => error)).code);';
    const { said } = await program(code, { address: `127.0.0.1:${await freePort()}` });
    expect(said).toBe('UNAVAILABLE');
  });
});

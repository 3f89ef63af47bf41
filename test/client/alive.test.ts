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
 * A resident client does not keep its process alive, however long its stream is open. A pending operation does.
 */

let certificates: Certificates;
beforeAll(async () => {
  certificates = await makeCertificates();
});
const directories = useDirectories();

const CONNECT = "import { connect } from 'CLIENT'; const client = connect({ ...OPTIONS, agents: ['trader'] });";

/** Runs a program against a service; returns its duration and its output. */
async function program(code: string, options: object): Promise<{ ms: number; output: string }> {
  const file = join(await directories(), 'program.mjs');
  const client = pathToFileURL(packageFile('src/client/index.ts')).href;
  await writeFile(file, `${CONNECT}\n${code}`.replace('CLIENT', client).replaceAll('OPTIONS', JSON.stringify(options)));
  const began = performance.now();
  const { stdout } = await run(process.execPath, ['--import', 'tsx', file], { cwd: packageFile('.'), timeout: 30_000 });
  return { ms: performance.now() - began, output: stdout.trim() };
}

async function startFakeService(credentials?: ServerCredentials): Promise<FakeWatch> {
  const fake = await startFakeWatch(0, credentials);
  fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)]);
  return fake;
}

describe('a process with a resident client', () => {
  const resolves = `await client.ready();
    const ended = performance.now();
    process.on('exit', () => console.log(client.agent('trader').resolve().hops.length, performance.now() - ended < 1_000));`;

  it('exits when its work is done while the stream is open', async () => {
    const { address } = await startFakeService();
    expect((await program(resolves, { address })).output).toBe('1 true');
  });

  it('exits when its work is done while a TLS stream is open', async () => {
    const pair = { cert_chain: certificates.server.cert, private_key: certificates.server.key };
    const fake = await startFakeService(ServerCredentials.createSsl(null, [pair]));
    const tls = { ca: String(certificates.ca), serverName: 'agentllm.test' };
    expect((await program(resolves, { address: fake.address, tls })).output).toBe('1 true');
  });

  it('exits while the client tries to connect', async () => {
    const { output } = await program("process.on('exit', () => console.log(client.state.status));", {
      address: `127.0.0.1:${await freePort()}`,
    });
    expect(output).toBe('CONNECTING');
  });

  it('exits while the client waits for a token', async () => {
    const { address } = await startFakeService();
    const code = `const other = connect({ ...OPTIONS, agents: 'all', token: () => new Promise(() => {}) });
      setTimeout(() => console.log(other.state.status), 200);`;
    const { output, ms } = await program(code, { address });
    expect(output).toBe('CONNECTING');
    expect(ms).toBeLessThan(8_000);
  });

  it('stays alive until its unary calls have completed', async () => {
    const { address } = await startFakeService();
    const code = 'await client.ready(); console.log((await client.watchers.listWatchers()).watchers.length);';
    expect((await program(code, { address })).output).toBe('0');
  });

  it('stays alive until an awaited disposal of the client has completed', async () => {
    const { address } = await startFakeService();
    const code = "await client.ready(); await client[Symbol.asyncDispose](); console.log('closed');";
    expect((await program(code, { address })).output).toBe('closed');
  });

  it('stays alive while it iterates over changes', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => {
      stream.start().snapshot(10, [agent('trader', 1)]);
      setTimeout(() => stream.change(11, [agent('trader', 11)]), 1_500);
    };
    const code =
      'for await (const { revision } of client.changes()) if (revision === 11n) { console.log("11"); break; }';
    const { output, ms } = await program(code, { address: fake.address });
    expect(output).toBe('11');
    expect(ms).toBeGreaterThan(1_500);
  });

  const startLeasing = async (leaseMs: number) => {
    const fake = await startFakeWatch();
    const leases = new FakeLeases(fake);
    leases.keys = [{ config_id: 8, key: 'sk-leased' }];
    const configs = [config(8, 1, { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' })];
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1, { configs })]);
    return { leases, options: { address: fake.address, leaseMs } };
  };

  it('stays alive until a requested key has arrived', async () => {
    const { leases, options } = await startLeasing(600_000);
    leases.responseDelay = new Promise((resolve) => setTimeout(resolve, 2_500));
    const code = "await client.ready(); console.log(await client.agent('trader').apiKey());";
    expect((await program(code, options)).output).toBe('sk-leased');
  });

  it('exits while a lease is renewed in advance', async () => {
    const { leases, options } = await startLeasing(1_000);
    const code = `await client.ready();
      const key = () => client.agent('trader').apiKey();
      await key();
      await key();
      await new Promise((go) => setTimeout(go, 900));
      const ended = performance.now();
      process.on('exit', () => console.log(performance.now() - ended < 1_000));`;
    const running = program(code, options);
    while (leases.requests.length === 0) await new Promise((go) => setTimeout(go, 5));
    leases.responseDelay = new Promise(() => {});
    expect((await running).output).toBe('true');
    expect(leases.requests).toHaveLength(2);
  });

  it('stays alive while ready() is pending, until its timeout expires', async () => {
    const code = 'console.log((await client.ready(1_000).catch((error) => error)).code);';
    const { output } = await program(code, { address: `127.0.0.1:${await freePort()}` });
    expect(output).toBe('UNAVAILABLE');
  });
});

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { ServerCredentials } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageFile } from '../../src/package.js';
import { useDirectories } from '../support/command.js';
import { freePort } from '../support/ports.js';
import { until } from '../support/until.js';
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
  const { stdout } = await run(process.execPath, ['--import', 'tsx', file], { cwd: packageFile('.'), timeout: 50_000 });
  return { ms: performance.now() - began, output: stdout.trim() };
}

async function startFakeService(credentials?: ServerCredentials): Promise<FakeWatch> {
  const fake = await startFakeWatch(0, credentials);
  fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)]);
  return fake;
}

/** Prints whether the process exits when the program ends, and not when a timeout of the client does. */
const EXITS =
  'const ended = performance.now(); process.on("exit", () => console.log(performance.now() - ended < 5_000));';

describe('a process with a resident client', () => {
  const resolves = `await client.ready(); console.log(client.agent('trader').resolve().hops.length); ${EXITS}`;

  it('exits when its work is done while the stream is open', async () => {
    const { address } = await startFakeService();
    expect((await program(resolves, { address })).output).toBe('1\ntrue');
  });

  it('exits when its work is done while a TLS stream is open', async () => {
    const pair = { cert_chain: certificates.server.cert, private_key: certificates.server.key };
    const fake = await startFakeService(ServerCredentials.createSsl(null, [pair]));
    const tls = { ca: String(certificates.ca), serverName: 'agentllm.test' };
    expect((await program(resolves, { address: fake.address, tls })).output).toBe('1\ntrue');
  });

  it('exits while the client tries to connect', async () => {
    const { output } = await program("process.on('exit', () => console.log(client.state.status));", {
      address: `127.0.0.1:${await freePort()}`,
    });
    expect(output).toBe('CONNECTING');
  });

  it('exits while the client waits for a token', async () => {
    const { address } = await startFakeService();
    const code = `let asked;
      const waits = new Promise((resolve) => { asked = resolve; });
      const token = () => { asked(); return new Promise(() => {}); };
      const other = connect({ ...OPTIONS, agents: 'all', token });
      await waits;
      console.log(other.state.status);
      ${EXITS}`;
    expect((await program(code, { address })).output).toBe('CONNECTING\ntrue');
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

  const LEASE_MS = 600_000;
  const LEASED = [config(8, 1, { has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' })];
  const startLeasing = async () => {
    const fake = await startFakeWatch();
    const leases = new FakeLeases(fake);
    leases.keys = [{ config_id: 8, key: 'sk-leased' }];
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1, { configs: LEASED })]);
    return { fake, leases, options: { address: fake.address, leaseMs: LEASE_MS } };
  };

  it('stays alive until a requested key has arrived', async () => {
    const { leases, options } = await startLeasing();
    const respond = leases.holdResponses();
    const code = "await client.ready(); console.log(await client.agent('trader').apiKey());";
    const running = program(code, options);
    await until(() => leases.requests.length === 1, 'the key is requested', 45_000);
    await sleep(2_500);
    respond();
    expect((await running).output).toBe('sk-leased');
  });

  it('exits while a lease is renewed in advance', async () => {
    const { fake, leases, options } = await startLeasing();
    // The second use is so late that it starts the renewal. A change tells the program that the renewal is in progress.
    const code = `await client.ready();
      const key = () => client.agent('trader').apiKey();
      await key();
      const now = Date.now;
      Date.now = () => now() + ${LEASE_MS * 0.9};
      const changes = client.changes();
      await key();
      await changes.next();
      ${EXITS}`;
    const running = program(code, options);
    await until(() => leases.requests.length === 1, 'the key is requested', 45_000);
    leases.holdResponses();
    await until(() => leases.requests.length === 2, 'the lease is renewed', 45_000);
    fake.streams[0]?.change(11, [agent('trader', 11, { configs: LEASED })]);
    expect((await running).output).toBe('true');
    expect(leases.requests).toHaveLength(2);
  });

  it('stays alive while ready() is pending, until its timeout expires', async () => {
    const code = 'console.log((await client.ready(1_000).catch((error) => error)).code);';
    const { output } = await program(code, { address: `127.0.0.1:${await freePort()}` });
    expect(output).toBe('UNAVAILABLE');
  });
});

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type StatusObject,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { onTestFinished, vi } from 'vitest';
import { AgentServiceService } from '../../gen/ts/agentllm/v1/agent_service.js';
import { type AgentLLM, AgentLLMError, type ConnectOptions, connect } from '../../src/client/index.js';

/** A client with its own connection that is closed at the end of the test. */
export function connectTo(address: string, options: Omit<ConnectOptions, 'address'> = {}): AgentLLM {
  const { channelOptions, ...more } = options;
  const agentllm = connect({
    address,
    ...more,
    channelOptions: { 'grpc.use_local_subchannel_pool': 1, ...channelOptions },
  });
  onTestFinished(() => agentllm.close());
  return agentllm;
}

/** Awaits a call that must fail with an AgentLLMError, and returns the error. */
export async function failed(call: Promise<unknown>): Promise<AgentLLMError> {
  const error = await call.then(
    () => {
      throw new Error('the call succeeded');
    },
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof AgentLLMError)) throw error;
  return error;
}

export interface Fake {
  readonly port: number;
  readonly address: string;
  /** The headers of every received call, in order. */
  readonly calls: Metadata[];
  /** The number of calls that the client cancelled. */
  cancelled: number;
}

type Handler = (call: ServerUnaryCall<unknown, unknown>, done: sendUnaryData<unknown>) => void;

/** A server of AgentService that handles every method alike; by default it returns an empty message. */
export async function startFake(
  respond: Handler = (_, done) => done(null, {}),
  credentials = ServerCredentials.createInsecure(),
): Promise<Fake> {
  const server = new Server();
  const calls: Metadata[] = [];
  const fake = { port: 0, address: '', calls, cancelled: 0 };
  const definition = Object.fromEntries(
    Object.entries(AgentServiceService).map(([name, method]) => [
      name,
      { ...method, responseSerialize: (bytes: unknown) => (Buffer.isBuffer(bytes) ? bytes : Buffer.alloc(0)) },
    ]),
  );
  const handler = (call: ServerUnaryCall<unknown, unknown>, done: sendUnaryData<unknown>) => {
    calls.push(call.metadata);
    call.on('cancelled', () => {
      fake.cancelled++;
    });
    respond(call, done);
  };
  server.addService(definition, Object.fromEntries(Object.keys(definition).map((name) => [name, handler])));
  fake.port = await new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port))),
  );
  onTestFinished(() => server.forceShutdown());
  return Object.assign(fake, { address: `127.0.0.1:${fake.port}` });
}

/** An error status as a server sends it, with an optional trailer of any bytes. */
export function failWith(code: number, details: string, trailer?: Buffer): Partial<StatusObject> {
  const metadata = new Metadata();
  if (trailer) metadata.set('grpc-status-details-bin', trailer);
  return { code, details, metadata };
}

/** Replaces the timers and clocks until the end of the test; call it after the clients are connected. Sockets still work. */
export function useFakeClock(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
  // Runs before the clients are closed, which may wait for one of the pending timers.
  onTestFinished(() => {
    vi.runOnlyPendingTimers();
    vi.useRealTimers();
  });
}

/** Half of the default deadline: a call that ends earlier was not ended by that deadline. */
export const SOON_MS = 5_000;

/** The value of a promise and the time until it resolves, in ms. */
export async function timed<T>(promise: Promise<T>): Promise<{ ms: number; value: T }> {
  const started = performance.now();
  const value = await promise;
  return { ms: performance.now() - started, value };
}

export const run = promisify(execFile);

/** PEM files of a test authority, a server `agentllm.test` and a client. */
export interface Certificates {
  readonly ca: Buffer;
  readonly otherCa: Buffer;
  readonly server: { readonly cert: Buffer; readonly key: Buffer };
  /** A server certificate for the IP address 127.0.0.1. */
  readonly byIp: { readonly cert: Buffer; readonly key: Buffer };
  readonly client: { readonly cert: Buffer; readonly key: Buffer };
}

export async function makeCertificates(): Promise<Certificates> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-tls-'));
  const openssl = (...args: string[]) => run('openssl', args, { cwd: directory });
  const read = (name: string) => readFile(join(directory, name));
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = (name: string) =>
    openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.pem`,
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
    );
  const leaf = async (name: string, san: string) => {
    await writeFile(join(directory, `${name}.ext`), `subjectAltName=${san}\n`);
    await openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`];
    await openssl('x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, ...signed);
    return { cert: await read(`${name}.pem`), key: await read(`${name}.key`) };
  };
  try {
    await authority('ca');
    await authority('other');
    const server = await leaf('server', 'DNS:agentllm.test');
    const byIp = await leaf('ip', 'IP:127.0.0.1');
    const client = await leaf('client', 'DNS:client.test');
    return { ca: await read('ca.pem'), otherCa: await read('other.pem'), server, byIp, client };
  } finally {
    await rm(directory, { recursive: true });
  }
}

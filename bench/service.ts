import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { type Lab, type Program, root } from './lab.js';

/** The built service in a separate process, on free local ports. */
export interface Service {
  readonly port: number;
  readonly program: Program;
  readonly client: Caller;
}

/** Sends one unary call as bytes; rejects when it fails. */
export type Caller = (path: string, request: Uint8Array) => Promise<Buffer>;

const PROGRAM = 'dist/src/cli/agentllm.js';

export function spawnService(lab: Lab, env: Readonly<Record<string, string>>, file = PROGRAM): Program {
  const { PATH } = process.env;
  const ports = { GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: '127.0.0.1:0', LOG_LEVEL: 'warn' };
  return lab.start(process.execPath, [file, 'serve'], { cwd: root, env: { PATH, ...ports, ...env } });
}

/** Starts the service, with a new embedded database unless `env` sets DATABASE_URL. */
export async function startService(
  lab: Lab,
  env: Readonly<Record<string, string>> = {},
  file = PROGRAM,
): Promise<Service> {
  const embedded = env['DATABASE_URL'] === undefined;
  const program = spawnService(lab, embedded ? { DATA_DIR: await lab.directory(), ...env } : env, file);
  const [, port] = await program.match(/is ready after[\s\S]*?gRPC +127\.0\.0\.1:(\d+)/);
  return { port: Number(port), program, client: caller(lab, Number(port)) };
}

/** The certificates of a server, as settings of the service, and the certificate that clients trust. */
export interface Certificates {
  readonly settings: Readonly<Record<'TLS_CERT_FILE' | 'TLS_KEY_FILE', string>>;
  readonly trusted: Buffer;
}

export async function createCertificates(lab: Lab): Promise<Certificates> {
  const directory = await lab.directory();
  await promisify(execFile)(process.execPath, [PROGRAM, 'cert', 'dev', '--out', directory], { cwd: root });
  const settings = { TLS_CERT_FILE: join(directory, 'server.pem'), TLS_KEY_FILE: join(directory, 'server.key') };
  return { settings, trusted: await readFile(join(directory, 'ca.pem')) };
}

/** Starts a service that accepts only TLS and tokens, without the limit on the calls of one token. */
export async function startSecureService(lab: Lab, { settings, trusted }: Certificates) {
  const tokenFile = join(await lab.directory(), 'token');
  const env = { ...settings, BOOTSTRAP_TOKEN_FILE: tokenFile };
  const { port, program } = await startService(lab, env, 'bench/unlimited_service.mjs');
  const token = (await readFile(tokenFile, 'utf8')).trim();
  return { port, program, token, client: caller(lab, port, { trusted, token }) };
}

/** Calls a server from the benchmark process, for setup and checks and never for load. */
export function caller(lab: Lab, port: number, secure?: { readonly trusted: Buffer; readonly token: string }): Caller {
  const channel = secure ? credentials.createSsl(secure.trusted) : credentials.createInsecure();
  const client = new Client(`127.0.0.1:${port}`, channel, { 'grpc.use_local_subchannel_pool': 1 });
  const metadata = new Metadata();
  if (secure) metadata.set('authorization', `Bearer ${secure.token}`);
  lab.onClose(async () => client.close());
  const identity = (bytes: Buffer) => bytes;
  return (path, request) =>
    new Promise((resolve, reject) => {
      const deadline = Date.now() + 30_000;
      client.makeUnaryRequest(path, identity, identity, Buffer.from(request), metadata, { deadline }, (error, reply) =>
        error ? reject(error) : resolve(reply as Buffer),
      );
    });
}

/** Runs `work` for each item, at most `width` at a time. */
export async function inParallel<T>(items: readonly T[], width: number, work: (item: T) => Promise<unknown>) {
  const remaining = items.values();
  const worker = async () => {
    for (const item of remaining) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

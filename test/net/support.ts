import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { get, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { makeAuthority, makeLeaf, type Pair } from '../../src/cli/local/certificate_authority.js';
import { readSettings } from '../../src/config.js';
import type { Log } from '../../src/log.js';
import { serve } from '../../src/main.js';
import type { ServeFlags } from '../../src/net/exposure.js';
import { makeCertificate } from '../providers/certificate.js';
import { startPostgres } from '../support/postgres.js';

export const DAY_MS = 86_400_000;

export const serverNames = [
  { type: 'dns' as const, value: 'localhost' },
  { type: 'dns' as const, value: 'agentllm.test' },
  { type: 'ip' as const, value: '127.0.0.1' },
];

/** A certificate for the service, by an authority. */
export const makeServer = (authority: Pair, days = 30): Promise<Pair> =>
  makeLeaf(authority, { kind: 'server', names: serverNames, days });

export const makeClient = (authority: Pair, commonName: string): Promise<Pair> =>
  makeLeaf(authority, { kind: 'client', names: [], commonName, days: 30 });

/** One of which the time is up, or will be soon. */
export const makeExpired = (authority?: Pair, until = new Date(Date.now() - DAY_MS)): Pair =>
  makeCertificate({
    name: 'agentllm.test',
    ...(authority && { by: authority }),
    from: new Date(Date.now() - 2 * DAY_MS),
    until,
  });

export interface Files {
  readonly directory: string;
  /** Writes a file as tools do that renew certificates: a new one takes the place of the old. */
  put(name: string, content: string): Promise<string>;
  /** The certificate of a service and its key. */
  putPair(name: string, pair: Pair): Promise<void>;
  path(name: string): string;
}

/** A directory for certificates, gone after the test. */
export async function useFiles(): Promise<Files> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-tls-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const path = (name: string) => join(directory, name);
  const put = async (name: string, content: string) => {
    await writeFile(`${path(name)}.new`, content);
    await rename(`${path(name)}.new`, path(name));
    return path(name);
  };
  const putPair = async (name: string, { cert, key }: Pair) => {
    await put(`${name}.pem`, cert);
    await put(`${name}.key`, key);
  };
  return { directory, put, putPair, path };
}

export interface Line {
  readonly level: number;
  readonly msg: string;
  readonly [name: string]: unknown;
}

/** A log that can be read. */
export function openLog(): { readonly log: Log; readonly lines: Line[]; readonly text: () => string } {
  const lines: Line[] = [];
  let text = '';
  const sink = new Writable({
    write(chunk: Buffer, _, done) {
      text += chunk;
      for (const line of String(chunk).trim().split('\n')) lines.push(JSON.parse(line) as Line);
      done();
    },
  });
  return { log: pino({ level: 'debug' }, sink) as Log, lines, text: () => text };
}

export interface Running {
  readonly grpc: string;
  readonly http: number;
  readonly lines: Line[];
  readonly stop: () => Promise<void>;
}

/** The service in this process, with TLS as the settings say, until the test ends. */
export async function startTls(
  env: Readonly<Record<string, string>>,
  flags: Partial<ServeFlags> = {},
  directory?: string,
): Promise<Running> {
  const postgres = await startPostgres();
  const store = directory ? { DATA_DIR: directory } : { DATABASE_URL: await postgres.createDatabase('seeded') };
  const { log, lines } = openLog();
  const settings = readSettings({ GRPC_ADDRESS: '127.0.0.1:0', HTTP_ADDRESS: '127.0.0.1:0', ...store, ...env });
  const running = await serve(settings, { allowPlaintext: false, allowAnonymous: false, ...flags }, log);
  onTestFinished(async () => {
    await running.stop();
    await postgres.stop();
  });
  return { grpc: `127.0.0.1:${running.grpcPort}`, http: running.httpPort as number, lines, stop: () => running.stop() };
}

/** The settings for the files that `putPair('server', …)` has written. */
export const tlsSettings = ({ path }: Files) => ({
  TLS_CERT_FILE: path('server.pem'),
  TLS_KEY_FILE: path('server.key'),
});

export interface Reply {
  readonly status: number;
  readonly body: string;
}

/** Asks the HTTP port over TLS, on a connection of its own. */
export function ask(port: number, path: string, tls: RequestOptions = {}): Promise<Reply & { readonly seen: string }> {
  return new Promise((resolve, reject) => {
    const call = get({ host: '127.0.0.1', port, path, agent: false, ...tls }, (response) => {
      const seen = (response.socket as TLSSocket).getPeerCertificate().fingerprint256;
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body, seen }));
    });
    call.on('error', reject);
  });
}

/** Waits until something holds, as long as a reload may take. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 15_000; !(await holds()); await delay(50))
    if (Date.now() > end) throw new Error(`it did not hold: ${holds}`);
}

export { makeAuthority, makeLeaf, type Pair };

import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { get, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
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

/** A certificate for the service, signed by the authority. */
export const makeServer = (authority: Pair, days = 30): Promise<Pair> =>
  makeLeaf(authority, { kind: 'server', names: serverNames, days });

export const makeClient = (authority: Pair, commonName: string): Promise<Pair> =>
  makeLeaf(authority, { kind: 'client', names: [], commonName, days: 30 });

/** A certificate that has expired, or that expires at `until`. */
export const makeExpired = (authority?: Pair, until = new Date(Date.now() - DAY_MS)): Pair =>
  makeCertificate({
    name: 'agentllm.test',
    ...(authority && { by: authority }),
    from: new Date(Date.now() - 2 * DAY_MS),
    until,
  });

export interface Files {
  readonly directory: string;
  /** Replaces a file atomically (write, then rename), as tools that renew certificates do. */
  put(name: string, content: string): Promise<string>;
  /** Writes a certificate and its key. */
  putPair(name: string, pair: Pair): Promise<void>;
  path(name: string): string;
}

/** A directory for certificates, removed after the test. */
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

/** A log that keeps its lines in memory. */
export function openLog(): { readonly log: Log; readonly lines: Line[]; readonly text: () => string } {
  const lines: Line[] = [];
  let text = '';
  const sink = new Writable({
    write(chunk: Buffer, _, callback) {
      text += chunk;
      for (const line of String(chunk).trim().split('\n')) lines.push(JSON.parse(line) as Line);
      callback();
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

/** Runs the service in this process with the TLS settings of `env` until the test ends. */
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

export interface HttpsResponse {
  readonly status: number;
  readonly body: string;
}

/** Sends a GET to the HTTP port over TLS on a new connection; `seen` is the fingerprint of the server certificate. */
export function getHttps(
  port: number,
  path: string,
  tls: RequestOptions = {},
): Promise<HttpsResponse & { readonly seen: string }> {
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

export { makeAuthority, makeLeaf, type Pair };

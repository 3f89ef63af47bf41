import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished } from 'vitest';
import type { ModelCheck } from '../../src/providers/check_provider.js';
import type { CheckJob } from './ask_process.js';
import { type Certificate, makeCertificate } from './certificate.js';
import { type FakeProvider, KEY, startFakeProvider } from './fake_provider.js';
import type { Resolutions } from './fake_resolver.js';

/** The host name of the provider. */
export const NAME = 'llm.example.com';
/** The authority that signs the provider's certificate and that the checking process trusts. */
export const authority = makeCertificate({ name: 'a test authority', authority: true });
export const goodCertificate = (): Certificate => makeCertificate({ name: NAME, by: authority });

export interface CheckInProcess {
  readonly environment?: NodeJS.ProcessEnv;
  readonly models?: readonly string[];
  /** The addresses to which the host name resolves. */
  readonly resolves?: Resolutions;
}

/** Checks a provider over TLS in a process that trusts the authority. */
export async function checkOverTls(certificate: Certificate, options: CheckInProcess = {}) {
  const fake = await startFakeProvider('openai', { ...certificate, name: NAME });
  return { fake, ...(await checkInProcess(fake, options)) };
}

/** Checks a provider in a separate process. */
export async function checkInProcess(
  { provider }: FakeProvider,
  { environment, models = ['gpt-4o'], resolves = ['::1', '127.0.0.1'] }: CheckInProcess = {},
) {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-ca-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const ca = join(directory, 'ca.pem');
  await writeFile(ca, authority.cert);
  const job: CheckJob = { provider, key: KEY, models, names: { [NAME]: resolves } };
  const script = fileURLToPath(new URL('./ask_process.ts', import.meta.url));
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', script, JSON.stringify(job)],
    { env: { PATH: process.env['PATH'], NODE_EXTRA_CA_CERTS: ca, ...environment } },
  );
  expect(stdout + stderr).not.toContain(KEY);
  const results = JSON.parse(stdout) as ModelCheck[];
  return { results, result: results[0], stderr };
}

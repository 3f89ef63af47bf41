import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished } from 'vitest';
import type { Answer } from '../../src/providers/check_provider.js';
import type { AskJob } from './ask_process.js';
import { type Certificate, makeCertificate } from './certificate.js';
import { type FakeProvider, KEY, startFakeProvider } from './fake_provider.js';
import type { Resolutions } from './fake_resolver.js';

/** The name of the provider that is asked. */
export const NAME = 'llm.example.com';
/** Who signs its certificate, and is trusted by the process that asks. */
export const authority = makeCertificate({ name: 'a test authority', authority: true });
export const goodCertificate = (): Certificate => makeCertificate({ name: NAME, by: authority });

export interface Trusting {
  readonly environment?: NodeJS.ProcessEnv;
  readonly models?: readonly string[];
  /** What the provider's name resolves to. */
  readonly resolves?: Resolutions;
}

/** Asks over TLS, in a process that trusts the authority, and whose environment would have it go astray. */
export async function askTrusting(certificate: Certificate, options: Trusting = {}) {
  const fake = await startFakeProvider('openai', { ...certificate, name: NAME });
  return { fake, ...(await askInProcess(fake, options)) };
}

/** Asks in a process of its own. */
export async function askInProcess(
  { provider }: FakeProvider,
  { environment, models = ['gpt-4o'], resolves = ['::1', '127.0.0.1'] }: Trusting = {},
) {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-ca-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const ca = join(directory, 'ca.pem');
  await writeFile(ca, authority.cert);
  const job: AskJob = { provider, key: KEY, models, names: { [NAME]: resolves } };
  const script = fileURLToPath(new URL('./ask_process.ts', import.meta.url));
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', script, JSON.stringify(job)],
    { env: { PATH: process.env['PATH'], NODE_EXTRA_CA_CERTS: ca, ...environment } },
  );
  expect(stdout + stderr).not.toContain(KEY);
  const answers = JSON.parse(stdout) as Answer[];
  return { answers, answer: answers[0], stderr };
}

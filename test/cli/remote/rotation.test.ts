import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { packageFile } from '../../../src/package.js';
import { useDirectories } from '../../support/command.js';
import { runCommand } from '../../support/run_command.js';
import { startService, type TestService } from '../../support/service.js';
import { rowsOf } from '../support.js';

const directory = useDirectories();

/**
 * Starts a service with API keys that are not encrypted with the first encryption key; returns the command line that
 * calls it.
 */
async function startWithOutdatedKeys(count: number, keysOf: (old: string) => string) {
  const DATA_DIR = await directory.started();
  const old = generateKey();
  const withService = async <T>(ENCRYPTION_KEY: string, use: (service: TestService) => Promise<T>) => {
    const service = await startService({ DATA_DIR, ENCRYPTION_KEY });
    try {
      return await use(service);
    } finally {
      await service.stop();
    }
  };
  await withService(old, async ({ credentials }) => {
    const store = (_: unknown, at: number) =>
      credentials.createCredential({ credential: { name: `desk-${at}`, provider: 'openai' }, api_key: `sk-${at}` });
    await Promise.all(Array.from({ length: count }, store));
  });
  const service = await startService({ DATA_DIR, ENCRYPTION_KEY: keysOf(old) });
  onTestFinished(() => service.stop());
  const env = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
  const cli = (...args: string[]) => runCommand(args, env);
  return { cli, env, service };
}

describe('agentllm key', () => {
  it('rotate re-encrypts all API keys, and status counts them per key before and after', async () => {
    const { cli, service } = await startWithOutdatedKeys(250, (old) => `${generateKey()},${old}`);
    const before = await cli('key', 'status');
    expect(rowsOf(before.stdout).slice(0, 2)).toMatchObject([
      { STATE: 'encrypts', CREDENTIALS: '0' },
      { STATE: 'decrypts', CREDENTIALS: '250' },
    ]);
    expect(before.stdout).toContain(
      '\n250 of 250 stored API keys not under the key that encrypts: agentllm key rotate\n',
    );
    const rotated = await cli('key', 'rotate');
    expect(rotated).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^250 of 250 keys re-encrypted with key [0-9a-f]{12}\n$/),
      stderr: expect.stringMatching(/^re-encrypting 250 keys with key [0-9a-f]{12}\n/),
    });
    expect((await cli('key', 'status')).stdout).toContain('\n250 stored API keys, all under the key that encrypts\n');
    const repeated = await cli('key', 'rotate');
    expect(repeated).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^nothing to do: all stored keys /),
      stderr: '',
    });
    const audit = await cli('audit', '--kind', 'key-rotation');
    expect(rowsOf(audit.stdout).map(({ METHOD, DETAILS }) => [METHOD, DETAILS?.replace(/ under.*/, '')])).toEqual([
      ['RotateEncryptionKey', 'rotation finished: 0 of 0'],
      ['RotateEncryptionKey', 'rotation begun: 0 of 0'],
      ['RotateEncryptionKey', 'rotation finished: 250 of 250'],
      ['RotateEncryptionKey', 'rotation begun: 0 of 250'],
    ]);
    const metrics = await (await fetch(`http://127.0.0.1:${service.running.httpPort}/metrics`)).text();
    expect(metrics).toMatch(/^agentllm_calls_total\{.*RotateEncryptionKey.*code="OK".*\} 2$/m);
    const history = await cli('history', '--limit', '1');
    expect(history.stdout).toMatch(/RotateEncryptionKey\n {2}keys {2}credential desk-\d+: API key encrypted anew\n/);
  });

  it('rotate prints one JSON line per message with --json', async () => {
    const { cli } = await startWithOutdatedKeys(250, (old) => `${generateKey()},${old}`);
    const { code, stdout, stderr } = await cli('key', 'rotate', '--json');
    expect([code, stderr]).toEqual([0, '']);
    const messages = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(messages.map(({ done, finished }) => [done, finished])).toEqual([
      [0, false],
      [100, false],
      [200, false],
      [250, false],
      [250, true],
    ]);
    const status = JSON.parse((await cli('key', 'status', '--json')).stdout);
    expect(status).toMatchObject({
      ready: true,
      outdated_count: 0,
      keys: [{ primary: true, credential_count: 250 }, {}],
    });
  });

  it('rotate is rejected when ENCRYPTION_KEY is wrong, and status names the missing key', async () => {
    const { cli } = await startWithOutdatedKeys(3, generateKey);
    const wrong = await cli('key', 'rotate');
    expect(wrong).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('is not the encryption key of the stored'),
    });
    const status = await cli('key', 'status');
    expect(status.stdout).toMatch(/missing +0 +3\n[\s\S]*3 keys cannot be decrypted: credential desk-0, /);
  });

  it('rotate exits with 4 when no service is reachable', async () => {
    const unreachable = { AGENTLLM_ADDRESS: '127.0.0.1:1' };
    const { code, stderr } = await runCommand(['key', 'rotate'], unreachable);
    expect([code, stderr]).toEqual([4, expect.stringMatching(/^agentllm: no service is reachable at 127.0.0.1:1 /)]);
  });

  it.skipIf(spawnSync('script', ['--version']).status !== 0)(
    'rotate updates a progress bar in place when the output is a terminal',
    async () => {
      const { env } = await startWithOutdatedKeys(250, (old) => `${generateKey()},${old}`);
      const program = packageFile('dist/src/cli/agentllm.js');
      const command = `script -qec "${process.execPath} ${program} key rotate" /dev/null`;
      const { stdout } = await promisify(execFile)('bash', ['--norc', '-c', command], {
        env: { ...process.env, ...env },
      });
      expect(stdout).toContain(`\r[${'.'.repeat(30)}] 0 of 250\u001b[K`);
      expect(stdout).toContain(`\r[${'#'.repeat(24)}......] 200 of 250\u001b[K`);
      expect(stdout.slice(stdout.lastIndexOf('\u001b[K') + 3)).toMatch(
        /^250 of 250 keys re-encrypted with key \w{12}\r\n$/,
      );
    },
  );
});

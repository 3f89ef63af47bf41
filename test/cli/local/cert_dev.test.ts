import { X509Certificate } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { getHttps } from '../../net/support.js';
import { agentllm, startCommand, useDirectories } from '../../support/command.js';
import { runCommand } from '../../support/run_command.js';

const directory = useDirectories();

async function runCertDev(out: string, ...args: string[]) {
  const { code, stdout, stderr } = await runCommand(['cert', 'dev', '--out', out, ...args]);
  return { code, stdout, stderr };
}

/** The environment variables of the printed lines `export A=b C=d`. */
const exportsIn = (text: string) =>
  Object.fromEntries([...text.matchAll(/\b([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value as string]));

const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);
const certificate = async (path: string) => new X509Certificate(await readFile(path));

describe('agentllm cert dev', () => {
  it('creates files and prints settings with which a service and a client use TLS', async () => {
    const out = join(await directory(), 'certs');
    const { code, stdout } = await runCertDev(out);
    expect(code).toBe(0);
    const env = exportsIn(stdout);
    expect(Object.keys(env)).toEqual(['TLS_CERT_FILE', 'TLS_KEY_FILE', 'AGENTLLM_CA']);
    const { AGENTLLM_CA, ...TLS } = env as Record<'AGENTLLM_CA', string>;
    const http = { HTTP_ADDRESS: '127.0.0.1:0' };
    const running = await startCommand({ DATA_DIR: await directory.started(), ...TLS, ...http });
    const [, port] = await running.untilOutput(/HTTP {6}https:\/\/127\.0\.0\.1:(\d+)/);
    for (const host of ['127.0.0.1', 'localhost']) {
      const listed = await agentllm(['agents', 'list'], { AGENTLLM_CA, AGENTLLM_ADDRESS: `${host}:${running.port}` })
        .ended;
      expect(listed.code, listed.stderr).toBe(0);
      expect(listed.stdout).toContain('trader');
    }
    const ca = await readFile(AGENTLLM_CA);
    expect((await getHttps(Number(port), '/readyz', { ca })).body).toBe('ok\n');
  });

  it('creates client certificates that mutual TLS accepts', async () => {
    const out = join(await directory(), 'certs');
    const { stdout } = await runCertDev(out, '--client', 'trader', '--client', 'spiffe://desk/analyst');
    const { AGENTLLM_CA, AGENTLLM_CERT, AGENTLLM_KEY, ...TLS } = exportsIn(stdout) as Record<string, string>;
    const env = { AGENTLLM_CA, AGENTLLM_CERT, AGENTLLM_KEY } as Record<string, string>;
    const running = await startCommand({ DATA_DIR: await directory.started(), ...TLS });
    const list = (clientEnv: Record<string, string>) =>
      runCommand(['agents', 'list'], { AGENTLLM_ADDRESS: `127.0.0.1:${running.port}`, ...clientEnv });
    expect((await list(env)).code).toBe(0);
    const secondClient = (extension: string) => join(out, `client-spiffe-desk-analyst.${extension}`);
    expect((await list({ ...env, AGENTLLM_CERT: secondClient('pem'), AGENTLLM_KEY: secondClient('key') })).code).toBe(
      0,
    );
    const rejected = await list({ AGENTLLM_CA: env['AGENTLLM_CA'] as string });
    expect(rejected.code).toBe(4);
    expect(rejected.stderr).toContain('set --cert and --key');
  });

  it('prints no key and restricts the permissions of its files', async () => {
    const out = join(await directory(), 'certs');
    const { stdout, stderr } = await runCertDev(out, '--client', 'trader');
    expect(stdout + stderr).not.toContain('-----');
    expect(await mode(out)).toBe('700');
    for (const name of ['ca', 'server', 'client-trader']) expect(await mode(join(out, `${name}.key`))).toBe('600');
  });

  it('renews the certificates with the existing authority, keys and names', async () => {
    const out = join(await directory(), 'certs');
    await runCertDev(out, '--host', 'agentllm.test', '--host', 'FE80::2', '--days', '2');
    const files = ['ca.pem', 'ca.key', 'server.key'].map((name) => join(out, name));
    const before = await Promise.all(files.map((file) => readFile(file, 'utf8')));
    const first = await certificate(join(out, 'server.pem'));
    const { stdout } = await runCertDev(out, '--host', 'second.test', '--client', 'trader');
    expect(stdout).toContain('renewed ');
    expect(await Promise.all(files.map((file) => readFile(file, 'utf8')))).toEqual(before);
    const second = await certificate(join(out, 'server.pem'));
    expect(second.serialNumber).not.toBe(first.serialNumber);
    expect(second.verify((await certificate(join(out, 'ca.pem'))).publicKey)).toBe(true);
    for (const name of ['localhost', 'agentllm.test', 'second.test']) expect(second.checkHost(name)).toBe(name);
    for (const address of ['127.0.0.1', '::1', 'fe80::2']) expect(second.checkIP(address)).toBeDefined();
    expect(Date.parse(second.validTo) - Date.parse(first.validTo)).toBeGreaterThan(27 * 86_400_000);
  });

  it('does not overwrite files that it did not create', async () => {
    const out = await directory();
    await runCertDev(out, '--client', 'a/b');
    const conflicting = await runCertDev(out, '--client', 'a:b');
    expect(conflicting).toMatchObject({ code: 2, stdout: '' });
    expect(conflicting.stderr).toContain('client-a-b.pem, which is for another client: choose another --out');
    await writeFile(join(out, 'ca.pem'), 'mine');
    expect(await runCertDev(out)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('ca.pem is not a certificate'),
    });
    const incomplete = await directory();
    await writeFile(join(incomplete, 'ca.key'), 'mine');
    expect((await runCertDev(incomplete)).stderr).toContain('ca.key must both exist, and one of them is missing');
    expect(await readFile(join(incomplete, 'ca.key'), 'utf8')).toBe('mine');
  });

  it.each([
    ['--days', '0'],
    ['--days', '826'],
    ['--days', 'many'],
    ['--host', 'a b'],
    ['--host', 'a.test:443'],
    ['--host', '*.test'],
    ['--client', 'two words'],
    ['--client', 'spiffe://a, DNS:b'],
    ['--client', 'x'.repeat(65)],
    ['--client', ''],
  ])('rejects %s %j', async (option, value) => {
    const out = join(await directory(), 'certs');
    const { code, stderr } = await runCertDev(out, option, value);
    expect(code).toBe(2);
    expect(stderr).toContain(`${option} ${value}`.trim().slice(0, 30));
    await expect(stat(out)).rejects.toThrow();
  });
});

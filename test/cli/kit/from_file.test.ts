import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeText } from '../../../src/cli/kit/text.js';
import { packageFile } from '../../../src/package.js';
import { freePort } from '../../support/ports.js';
import { runCommand } from '../../support/run_command.js';
import { useService } from '../../support/service.js';

/* Text from files and standard input in the encodings of other platforms, and proxies set in the environment. */

const bigEndian = (text: string) => Buffer.from(text, 'utf16le').swap16();
const ENCODINGS: readonly (readonly [string, (text: string) => Buffer])[] = [
  ['UTF-8', (text) => Buffer.from(text)],
  ['UTF-8 with a byte order mark', (text) => Buffer.from(`\ufeff${text}`)],
  ['UTF-16 as PowerShell writes it', (text) => Buffer.from(`\ufeff${text}`, 'utf16le')],
  ['UTF-16 without a byte order mark', (text) => Buffer.from(text, 'utf16le')],
  ['UTF-16 big-endian', (text) => bigEndian(`\ufeff${text}`)],
  ['UTF-16 big-endian, without a byte order mark', bigEndian],
];

const service = useService('embedded');
const env = () => ({ AGENTLLM_ADDRESS: `127.0.0.1:${service().running.grpcPort}` });
let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'agentllm-test-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Runs a command with `bytes` on standard input. */
async function withInput(args: readonly string[], bytes: Buffer) {
  const child = spawn(process.execPath, [packageFile('dist/src/cli/agentllm.js'), ...args], {
    env: { PATH: process.env['PATH'], ...env() },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.end(bytes);
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output += chunk;
    });
  const [code] = await once(child, 'close');
  return { code, output };
}

describe('decodeText', () => {
  it.each(ENCODINGS)('decodes %s', (_what, encode) => {
    for (const text of ['{"description": "Ä 日本 😀"}', 'sk-1', '']) expect(decodeText(encode(text))).toBe(text);
  });

  it('returns undefined when the encoding is unknown', () => {
    expect(decodeText(Buffer.from([0x7b, 0xe4, 0x7d]))).toBeUndefined();
  });
});

describe('--from-file', () => {
  it.each(ENCODINGS)('reads %s from a file and from standard input', async (_what, encode) => {
    const bytes = encode('{"config": {"temperature": 0.5}}\r\n');
    const file = join(scratch, 'config.json');
    writeFileSync(file, bytes);
    const args = ['configs', 'update', '1', '--from-file'];
    const fromFile = await runCommand([...args, file], env());
    expect(fromFile.code, fromFile.stderr).toBe(0);
    const fromInput = await withInput([...args, '-'], bytes);
    expect(fromInput.code, fromInput.output).toBe(0);
  });

  it('rejects a file that is neither UTF-8 nor UTF-16', async () => {
    const file = join(scratch, 'latin1.json');
    writeFileSync(file, Buffer.from('{"description": "Ä"}', 'latin1'));
    const { code, stderr } = await runCommand(['configs', 'update', '1', '--from-file', file], env());
    expect(code).toBe(2);
    expect(stderr).toContain('must be text in UTF-8 or UTF-16');
  });

  it.each(['token-file', 'ca'])('decodes UTF-16 in the same way as --%s', async (option) => {
    const file = join(scratch, option);
    const text = option === 'ca' ? '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n' : 'al_aaaaaaaaaa_x';
    writeFileSync(file, Buffer.from(`\ufeff${text}`, 'utf16le'));
    const { stderr } = await runCommand(['agents', 'list', `--${option}`, file], env());
    expect(stderr).not.toMatch(/holds no certificate|must be text|no token/);
  });
});

describe('a proxy set in the environment', () => {
  const list = (proxy: Readonly<Record<string, string>>) =>
    runCommand(['agents', 'list', '--address', 'agentllm.invalid:50051', '--timeout', '5000'], proxy);

  it.each(['http_proxy', 'https_proxy', 'grpc_proxy'])(
    'is named in the error when it is unreachable: %s',
    async (name) => {
      const proxy = `127.0.0.1:${await freePort()}`;
      const { code, stderr } = await list({ [name]: `http://u:hunter2@${proxy}` });
      expect(code).toBe(4);
      expect(stderr).toContain(`the proxy ${proxy} of ${name} does not connect to agentllm.invalid:50051`);
      expect(stderr).toContain(`unset ${name}, or add the host to no_proxy`);
      expect(stderr).not.toMatch(/undefined|hunter2/);
    },
  );

  it('is named in the error when it rejects the connection', async () => {
    const server = createServer().on('connect', (_request, socket) => socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { stderr } = await list({ http_proxy: `http://${proxy}` });
    expect(stderr).toContain(`the proxy ${proxy} of http_proxy does not connect`);
    server.close();
  });

  it('is not used for loopback addresses or for hosts in no_proxy', async () => {
    const unreachable = { http_proxy: `http://127.0.0.1:${await freePort()}` };
    expect(await runCommand(['agents', 'list'], { ...env(), ...unreachable })).toMatchObject({ code: 0 });
    expect((await list({ ...unreachable, no_proxy: 'agentllm.invalid' })).stderr).not.toContain('proxy');
  });
});

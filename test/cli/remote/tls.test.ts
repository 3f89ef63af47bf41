import { beforeAll, describe, expect, it, vi } from 'vitest';
import {
  DAY_MS,
  type Files,
  makeAuthority,
  makeClient,
  makeExpired,
  makeServer,
  type Pair,
  startTls,
  tlsSettings,
  useFiles,
} from '../../net/support.js';
import { runCommand } from '../../support/run_command.js';

let authority: Pair;
let client: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  client = await makeClient(authority, 'trader');
});

async function filesWith(server: Pair): Promise<Files> {
  const files = await useFiles();
  await files.putPair('server', server);
  await files.putPair('client', client);
  await files.putPair('stranger', await makeClient(await makeAuthority(30), 'trader'));
  await files.put('ca.pem', authority.cert);
  await files.put('other.pem', (await makeAuthority(30)).cert);
  return files;
}

const list = (address: string, args: readonly string[] = [], env: Record<string, string> = {}) =>
  runCommand(['agents', 'list', '--address', address, ...args], env);

describe('agentllm with TLS', () => {
  it('reports the cause and the remedy of a TLS failure with the exit code', async () => {
    const files = await filesWith(await makeServer(authority));
    const { path } = files;
    const mutual = { TLS_CLIENT_CA_FILE: path('ca.pem'), TLS_CLIENT_CERT: 'required' };
    const { grpc } = await startTls({ ...tlsSettings(files), ...mutual });
    const ca = ['--ca', path('ca.pem')];
    const clientFiles = (name: string) => ['--cert', path(`${name}.pem`), '--key', path(`${name}.key`)];
    const rows: [readonly string[], number, string][] = [
      [[...ca, ...clientFiles('client')], 0, ''],
      [[], 4, 'it may require TLS: set --tls'],
      [
        ['--tls'],
        4,
        'is not trusted (self-signed certificate in certificate chain); set --ca to the authority that signed it',
      ],
      [['--ca', path('other.pem'), ...clientFiles('client')], 4, 'set --ca to the authority that signed it'],
      [ca, 4, 'client certificate'],
      [[...ca, ...clientFiles('stranger')], 4, 'does it trust the certificate of this client?'],
      [[...ca, ...clientFiles('client'), '--server-name', 'a.test'], 4, 'is for another name (Host: a.test.'],
      [[...ca, '--cert', path('client.pem')], 2, '--cert and --key must be set together'],
      [
        [...ca, '--cert', path('client.pem'), '--key', path('server.key')],
        2,
        '--key does not belong to the certificate of --cert',
      ],
      [['--ca', path('server.key')], 2, 'contains no PEM certificate'],
      [['--ca', path('none.pem')], 2, 'does not exist'],
    ];
    for (const [args, code, expectedText] of rows) {
      const ended = await list(grpc, args);
      expect(ended.stderr, args.join(' ')).toContain(expectedText);
      expect(ended.code, args.join(' ')).toBe(code);
      expect(ended.stderr).not.toMatch(/agentllm serve starts a service|-----BEGIN| {4}at /);
    }
  });

  it('reports that the certificate of the service has expired', async () => {
    const hour = DAY_MS / 24;
    const expiry = new Date(Date.now() - hour);
    const files = await filesWith(makeExpired(authority, expiry));
    // The certificate was valid when the service started.
    vi.useFakeTimers({ toFake: ['Date'], now: expiry.getTime() - hour });
    const { grpc } = await startTls(tlsSettings(files)).finally(() => vi.useRealTimers());
    const ended = await list(grpc, ['--ca', files.path('ca.pem'), '--server-name', 'agentllm.test']);
    expect(ended.stderr).toContain('the certificate of the service has expired; it needs a new one');
    expect(ended.code).toBe(4);
  });

  it('reads certificate files from the environment unless options name them', async () => {
    const files = await filesWith(await makeServer(authority));
    const { path } = files;
    const { grpc } = await startTls({ ...tlsSettings(files), TLS_CLIENT_CA_FILE: path('ca.pem') });
    const env = { AGENTLLM_CA: path('ca.pem'), AGENTLLM_CERT: path('client.pem'), AGENTLLM_KEY: path('client.key') };
    expect((await list(grpc, [], env)).code).toBe(0);
    expect((await list(grpc, ['--ca', path('other.pem')], env)).stderr).toContain('is not trusted');
    const typed = ['--cert', path('client.pem'), '--key', path('client.key')];
    expect((await list(grpc, typed, { AGENTLLM_CA: path('ca.pem'), AGENTLLM_CERT: '/none' })).code).toBe(0);
    const incomplete = await list(grpc, [], { ...env, AGENTLLM_KEY: '' });
    expect(incomplete).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('AGENTLLM_CERT and AGENTLLM_KEY must be set together'),
    });
    const none = await list(grpc, [], { ...env, AGENTLLM_KEY: '/secret/none' });
    expect(none.stderr).toMatch(/AGENTLLM_KEY +does not exist/);
    expect(none.stderr).not.toContain('/secret');
  });

  it('suggests omitting --tls when the service does not use TLS', async () => {
    const { grpc } = await startTls({});
    const files = await filesWith(await makeServer(authority));
    const ended = await list(grpc, ['--ca', files.path('ca.pem')]);
    expect(ended).toMatchObject({ code: 4, stderr: expect.stringContaining('does not speak TLS; leave --tls out') });
  });

  it('doctor checks the certificates of the service and of the connection', async () => {
    const files = await filesWith(await makeServer(authority, 5));
    const { grpc } = await startTls(tlsSettings(files));
    const env = { DATA_DIR: 'memory:', AGENTLLM_ADDRESS: grpc, ...tlsSettings(files) };
    const ended = await runCommand(['doctor', '--tls'], env);
    expect(ended.stdout).toMatch(/^warn {2}tls +The certificate of the service is valid until \d{4}-\d\d-\d\d$/m);
    expect(ended.stdout).toMatch(
      /^FAIL {2}service .* cannot be called\. .* set --ca to the authority that signed it$/m,
    );
    const broken = await runCommand(['doctor'], { ...env, TLS_KEY_FILE: files.path('client.key') });
    expect(broken.stdout).toMatch(/^FAIL {2}tls +TLS_KEY_FILE .* is not the key of the certificate in TLS_CERT_FILE /m);
  });
});

import { X509Certificate } from 'node:crypto';
import { get } from 'node:http';
import { createConnection } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type AgentLLM, connect, type TlsOptions } from '../../src/client/index.js';
import { failed } from '../client/support.js';
import { until } from '../support/until.js';
import {
  type Files,
  getHttps,
  makeAuthority,
  makeClient,
  makeServer,
  type Pair,
  startTls,
  tlsSettings,
  useFiles,
} from './support.js';

let authority: Pair;
let other: Pair;
let server: Pair;
let client: Pair;
let foreign: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  other = await makeAuthority(30);
  server = await makeServer(authority);
  client = await makeClient(authority, 'trader');
  foreign = await makeClient(other, 'trader');
});

/** The files of a service: its certificate and the authority of its clients. */
async function filesOf(pair = server): Promise<Files> {
  const files = await useFiles();
  await files.putPair('server', pair);
  await files.put('ca.pem', authority.cert);
  return files;
}

const fingerprint = ({ cert }: Pair) => new X509Certificate(cert).fingerprint256;

function api(address: string, tls: boolean | TlsOptions): AgentLLM {
  const channelOptions = { 'grpc.use_local_subchannel_pool': 1 };
  const agentllm = connect({ address, tls, retry: false, deadlineMs: 5_000, channelOptions });
  onTestFinished(() => agentllm.close());
  return agentllm;
}
const call = (address: string, tls: boolean | TlsOptions) => api(address, tls).agents.listAgents({ page_size: 1 });

describe('TLS', () => {
  it('is accepted on both ports, by host name and by IP address', async () => {
    const { grpc, http } = await startTls(tlsSettings(await filesOf()));
    const ca = authority.cert;
    await call(grpc, { ca });
    await call(grpc.replace('127.0.0.1', 'localhost'), { ca });
    await call(grpc, { ca, serverName: 'agentllm.test' });
    expect(await getHttps(http, '/readyz', { ca })).toMatchObject({
      status: 200,
      body: 'ok\n',
      seen: fingerprint(server),
    });
    const { body } = await getHttps(http, '/v1/agents/by-name/trader', { ca });
    expect(JSON.parse(body)).toMatchObject({ agent: { name: 'trader' } });
    const metrics = await getHttps(http, '/metrics', { ca });
    const expires = new Date(new X509Certificate(server.cert).validTo).getTime() / 1000;
    expect(metrics.body).toMatch(new RegExp(`^agentllm_certificate_expiry_seconds ${expires}$`, 'm'));
  });

  it('fails with a message that explains what is wrong with the certificate', async () => {
    const { grpc } = await startTls(tlsSettings(await filesOf()));
    const wrong = [
      [true, 'the certificate of the service is not trusted ('],
      [{ ca: other.cert }, 'set tls.ca to the authority that signed it'],
      [{ ca: authority.cert, serverName: 'other.test' }, 'the certificate of the service is for another name ('],
      [false, 'closed the connection; it may require TLS: set tls'],
    ] as const;
    for (const [tls, why] of wrong) {
      const error = await failed(call(grpc, tls));
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
      expect(error.message).toContain(why);
    }
  });

  it.each(['TLSv1', 'TLSv1.1'] as const)(
    'of version %s is rejected, while 1.2 and 1.3 are accepted',
    async (version) => {
      const { grpc, http } = await startTls(tlsSettings(await filesOf()));
      const negotiate = (port: number, only: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') =>
        new Promise<string>((resolve) => {
          // OpenSSL supports the old versions only at its lowest security level.
          const options = { minVersion: only, maxVersion: only, ciphers: 'DEFAULT@SECLEVEL=0' };
          const socket = connectTls({
            port,
            host: '127.0.0.1',
            ca: authority.cert,
            ALPNProtocols: ['h2', 'http/1.1'],
            ...options,
          });
          socket.on('error', (error: Error & { code?: string }) => resolve(error.code ?? ''));
          socket.on('secureConnect', () => {
            resolve(socket.getProtocol() ?? '');
            socket.destroy();
          });
        });
      for (const port of [http, Number(grpc.split(':')[1])]) {
        expect(await negotiate(port, version)).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
        expect(await negotiate(port, 'TLSv1.2')).toBe('TLSv1.2');
        expect(await negotiate(port, 'TLSv1.3')).toBe('TLSv1.3');
      }
    },
  );

  it('survives connections that do not use TLS, and logs them', async () => {
    const { grpc, http, lines } = await startTls(tlsSettings(await filesOf()));
    const ports = [http, Number(grpc.split(':')[1])];
    for (const port of ports)
      for (const bytes of [
        'GET / HTTP/1.1\r\n\r\n',
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
        '\x16\x03\x01\xff\xff',
        '',
        '\0'.repeat(70_000),
      ])
        await new Promise<void>((resolve) => {
          const socket = createConnection({ port, host: '127.0.0.1' }, () => socket.end(bytes, 'latin1'));
          socket
            .on('error', () => {})
            .on('close', () => resolve())
            .resume();
        });
    await expect(
      new Promise((resolve, reject) => get({ host: '127.0.0.1', port: http }, resolve).on('error', reject)),
    ).rejects.toThrow();
    await call(grpc, { ca: authority.cert });
    expect((await getHttps(http, '/healthz', { ca: authority.cert })).status).toBe(200);
    expect(lines.filter(({ msg }) => msg.startsWith('refused a connection'))).not.toEqual([]);
  });

  it('does not delay shutdown when a client has only started the handshake', async () => {
    const { grpc, http, stop } = await startTls({ ...tlsSettings(await filesOf()), SHUTDOWN_GRACE_MS: '500' });
    const closed = [http, Number(grpc.split(':')[1])].map(
      (port) =>
        new Promise<void>((resolve, reject) => {
          const socket = createConnection({ port, host: '127.0.0.1' }, () => socket.write('\x16\x03\x01'));
          socket.on('error', reject).on('close', () => resolve());
        }),
    );
    await call(grpc, { ca: authority.cert });
    await stop();
    await Promise.all(closed);
  });
});

describe('mutual TLS', () => {
  const mutual = (files: Files, clients = 'required') => ({
    ...tlsSettings(files),
    TLS_CLIENT_CA_FILE: files.path('ca.pem'),
    TLS_CLIENT_CERT: clients,
  });

  it('rejects clients without a certificate of the configured authority', async () => {
    const { grpc, http, lines } = await startTls(mutual(await filesOf()));
    const ca = authority.cert;
    await call(grpc, { ca, ...client });
    expect((await getHttps(http, '/readyz', { ca, ...client })).status).toBe(200);

    expect((await failed(call(grpc, { ca }))).message).toMatch(
      /requires? a client certificate.*tls\.cert and tls\.key/,
    );
    await expect(getHttps(http, '/readyz', { ca })).rejects.toThrow();
    expect((await failed(call(grpc, { ca, ...foreign }))).message).toMatch(
      /does it trust the certificate of this client/,
    );
    await expect(getHttps(http, '/readyz', { ca, ...foreign })).rejects.toThrow();
    const why = lines.filter(({ msg }) => msg.startsWith('refused a connection')).map((line) => line['why']);
    expect(new Set(why)).toEqual(
      new Set(['ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE']),
    );
  });

  it('admits every client when client certificates are optional', async () => {
    const { grpc, http } = await startTls(mutual(await filesOf(), 'optional'));
    const ca = authority.cert;
    for (const pair of [client, {}, foreign]) {
      await call(grpc, { ca, ...pair });
      expect((await getHttps(http, '/readyz', { ca, ...pair })).status).toBe(200);
    }
  });
});

describe('a new certificate', () => {
  it('is used for new connections, while streams on open connections continue', async () => {
    const files = await filesOf();
    const { grpc, http } = await startTls(tlsSettings(files));
    const ca = authority.cert;
    const agentllm = connect({ address: grpc, tls: { ca }, agents: ['trader'] });
    onTestFinished(() => agentllm.close());
    await agentllm.ready();
    const states: string[] = [];
    agentllm.on('state', (state) => states.push(JSON.stringify(state)));

    const next = await makeServer(authority);
    await files.putPair('server', next);
    await until(async () => (await getHttps(http, '/healthz', { ca })).seen === fingerprint(next));
    const { config } = await api(grpc, { ca }).configs.upsertPrimaryConfig({
      agent: { name: 'trader' },
      config: { temperature: 0.1 },
    });
    await until(() => agentllm.agent('trader').held?.configs[0]?.etag === config?.etag);
    expect(states).toEqual([]);
  });
});

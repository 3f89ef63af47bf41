import { ServerCredentials } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/client/index.js';
import { type Certificates, connectTo, failed, makeCertificates, startFake } from './support.js';

const SERVER_NAME = 'agentllm.test';
let certificates: Certificates;
beforeAll(async () => {
  certificates = await makeCertificates();
});

const startTls = (mutual = false, { cert, key } = certificates.server) => {
  const pair = { cert_chain: cert, private_key: key };
  return startFake(undefined, ServerCredentials.createSsl(certificates.ca, [pair], mutual));
};
const options = { retry: false };

describe('TLS', () => {
  it('accepts the configured authority and server name', async () => {
    const { address } = await startTls();
    for (const ca of [certificates.ca, certificates.ca.toString(), new Uint8Array(certificates.ca)])
      await connectTo(address, { ...options, tls: { ca, serverName: SERVER_NAME } }).agents.listAgents();
  });

  it('accepts a certificate for an IP address without a Node warning', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    onTestFinished(() => void process.off('warning', onWarning));
    const { address } = await startTls(false, certificates.byIp);
    await connectTo(address, { ...options, tls: { ca: certificates.ca } }).agents.listAgents();
    expect(warnings).toEqual([]);
  });

  it('sends the server name as the authority of each call', async () => {
    const hosts: string[] = [];
    const { address } = await startFake(
      (call, done) => {
        hosts.push(call.getHost());
        done(null, {});
      },
      ServerCredentials.createSsl(certificates.ca, [
        { cert_chain: certificates.server.cert, private_key: certificates.server.key },
      ]),
    );
    await connectTo(address, { ...options, tls: { ca: certificates.ca, serverName: SERVER_NAME } }).agents.listAgents();
    expect(hosts).toEqual([SERVER_NAME]);
  });

  it('carries a token', async () => {
    const fake = await startTls();
    const tls = { ca: certificates.ca, serverName: SERVER_NAME };
    await connectTo(fake.address, { ...options, tls, token: 'secret' }).agents.listAgents();
    expect(fake.calls[0]?.get('authorization')).toEqual(['Bearer secret']);
  });

  it('rejects another authority, another name and the authorities of the system, and reports why', async () => {
    const { address } = await startTls();
    const untrusted = [
      [{ ca: certificates.otherCa, serverName: SERVER_NAME }, /certificate|issuer/i],
      [{ ca: certificates.ca }, /altnames|IP/i],
      [{ ca: certificates.ca, serverName: 'other.test' }, /altnames|other\.test/i],
      [true, /certificate|issuer/i],
    ] as const;
    for (const [tls, message] of untrusted) {
      const error = await failed(connectTo(address, { ...options, tls }).agents.listAgents());
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
      expect(error.message).toMatch(message);
      await expect(connectTo(address, { ...options, tls }).ready(500)).rejects.toThrow(message);
    }
  });

  it('fails when only the client or only the server uses it', async () => {
    const tlsServer = await startTls();
    expect((await failed(connectTo(tlsServer.address, options).agents.listAgents())).code).toMatch(
      /UNAVAILABLE|DEADLINE/,
    );
    const plaintextServer = await startFake();
    const tls = { ca: certificates.ca, serverName: SERVER_NAME };
    const error = await failed(
      connectTo(plaintextServer.address, { ...options, tls, token: 'secret' }).agents.listAgents(),
    );
    expect(error.message).toBe(
      `No connection to the service: what listens at ${plaintextServer.address} does not speak TLS; leave tls out`,
    );
    expect(plaintextServer.calls).toHaveLength(0);
  });
});

describe('mutual TLS', () => {
  it('presents the client certificate to a server that requests one', async () => {
    const { address } = await startTls(true);
    const tls = { ca: certificates.ca, serverName: SERVER_NAME };
    await connectTo(address, { ...options, tls: { ...tls, ...certificates.client } }).agents.listAgents();
    const error = await failed(connectTo(address, { ...options, tls }).agents.listAgents());
    expect(error.code).toMatch(/UNAVAILABLE|DEADLINE/);
  });

  it('requires certificate and key in PEM', () => {
    const { cert, key } = certificates.client;
    expect(() => connect({ tls: { cert } })).toThrow();
    expect(() => connect({ tls: { key } })).toThrow();
    expect(() => connect({ tls: { cert: 'no', key: 'no' } })).toThrow();
  });
});

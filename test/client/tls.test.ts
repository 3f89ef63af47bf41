import { ServerCredentials } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '../../src/client/index.js';
import { type Certificates, connectTo, failed, makeCertificates, startFake } from './support.js';

const SERVER_NAME = 'agentllm.test';
let made: Certificates;
beforeAll(async () => {
  made = await makeCertificates();
});

const startTls = (mutual = false, { cert, key } = made.server) => {
  const pair = { cert_chain: cert, private_key: key };
  return startFake(undefined, ServerCredentials.createSsl(made.ca, [pair], mutual));
};
const options = { deadlineMs: 3_000, retry: false };

describe('TLS', () => {
  it('trusts the authority that it is told to, under the name that it is told', async () => {
    const { address } = await startTls();
    for (const ca of [made.ca, made.ca.toString(), new Uint8Array(made.ca)])
      await connectTo(address, { ...options, tls: { ca, serverName: SERVER_NAME } }).agents.listAgents();
  });

  it('knows a service by its IP, where the certificate has it', async () => {
    const warnings: Error[] = [];
    const listen = (warning: Error) => warnings.push(warning);
    process.on('warning', listen);
    onTestFinished(() => void process.off('warning', listen));
    const { address } = await startTls(false, made.byIp);
    await connectTo(address, { ...options, tls: { ca: made.ca } }).agents.listAgents();
    expect(warnings).toEqual([]);
  });

  it('tells a proxy between the name of the service', async () => {
    const hosts: string[] = [];
    const { address } = await startFake(
      (call, done) => {
        hosts.push(call.getHost());
        done(null, {});
      },
      ServerCredentials.createSsl(made.ca, [{ cert_chain: made.server.cert, private_key: made.server.key }]),
    );
    await connectTo(address, { ...options, tls: { ca: made.ca, serverName: SERVER_NAME } }).agents.listAgents();
    expect(hosts).toEqual([SERVER_NAME]);
  });

  it('sends a token over it', async () => {
    const fake = await startTls();
    const tls = { ca: made.ca, serverName: SERVER_NAME };
    await connectTo(fake.address, { ...options, tls, token: 'secret' }).agents.listAgents();
    expect(fake.calls[0]?.get('authorization')).toEqual(['Bearer secret']);
  });

  it('does not trust another authority, another name or the system for it, and says why', async () => {
    const { address } = await startTls();
    const wrong = [
      [{ ca: made.otherCa, serverName: SERVER_NAME }, /certificate|issuer/i],
      [{ ca: made.ca }, /altnames|IP/i],
      [{ ca: made.ca, serverName: 'other.test' }, /altnames|other\.test/i],
      [true, /certificate|issuer/i],
    ] as const;
    for (const [tls, why] of wrong) {
      const error = await failed(connectTo(address, { ...options, tls }).agents.listAgents());
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: undefined });
      expect(error.message).toMatch(why);
      await expect(connectTo(address, { ...options, tls }).ready(500)).rejects.toThrow(why);
    }
  });

  it('does not speak in clear with a server that wants it, nor the other way round', async () => {
    const secret = await startTls();
    expect((await failed(connectTo(secret.address, options).agents.listAgents())).code).toMatch(/UNAVAILABLE|DEADLINE/);
    const clear = await startFake();
    const tls = { ca: made.ca, serverName: SERVER_NAME };
    const error = await failed(connectTo(clear.address, { ...options, tls, token: 'secret' }).agents.listAgents());
    expect(error.message).toBe(
      `No connection to the service: what listens at ${clear.address} does not speak TLS; leave tls out`,
    );
    expect(clear.calls).toHaveLength(0);
  });
});

describe('mutual TLS', () => {
  it('shows its certificate to a server that asks for one', async () => {
    const { address } = await startTls(true);
    const tls = { ca: made.ca, serverName: SERVER_NAME };
    await connectTo(address, { ...options, tls: { ...tls, ...made.client } }).agents.listAgents();
    const error = await failed(connectTo(address, { ...options, tls }).agents.listAgents());
    expect(error.code).toMatch(/UNAVAILABLE|DEADLINE/);
  });

  it('needs certificate and key, and PEM', () => {
    const { cert, key } = made.client;
    expect(() => connect({ tls: { cert } })).toThrow();
    expect(() => connect({ tls: { key } })).toThrow();
    expect(() => connect({ tls: { cert: 'no', key: 'no' } })).toThrow();
  });
});

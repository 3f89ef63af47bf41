import type { Socket } from 'node:net';
import { connect as connectTls, createServer } from 'node:tls';
import { Server, ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { AgentServiceService, GetAgentResponse } from '../../gen/ts/agentllm/v1/agent_service.js';
import { connect } from '../../src/client/index.js';
import { listen } from '../../src/net/listen.js';
import { peerIdentities, verifiedPeer } from '../../src/net/peer_identity.js';
import { ServerTls } from '../../src/net/tls.js';
import { makeAuthority, makeClient, makeLeaf, makeServer, openLog, type Pair, useFiles } from './support.js';

let authority: Pair;
let server: Pair;
let trader: Pair;
let desk: Pair;
let foreign: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  server = await makeServer(authority);
  trader = await makeClient(authority, 'trader');
  const names = [{ type: 'url' as const, value: 'spiffe://desk/analyst' }];
  desk = await makeLeaf(authority, { kind: 'client', commonName: 'analyst', names, days: 30 });
  foreign = await makeClient(await makeAuthority(30), 'trader');
});

async function openTls(clients: 'required' | 'optional') {
  const files = await useFiles();
  await files.putPair('server', server);
  await files.put('ca.pem', authority.cert);
  const [TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE] = ['server.pem', 'server.key', 'ca.pem'].map(files.path);
  const named = { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT: clients };
  const tls = await ServerTls.open(named as Parameters<typeof ServerTls.open>[0], openLog().log);
  onTestFinished(() => tls.close());
  return tls;
}

/** A gRPC server on our listener that only records the identity of each caller. */
async function startGrpc(tls: ServerTls | undefined) {
  const grpc = new Server();
  let peer: Socket;
  const { getAgent } = AgentServiceService;
  grpc.addService(
    { getAgent },
    {
      getAgent(_: ServerUnaryCall<object, object>, callback: (error: null, response: object) => void) {
        seen.push({ identities: peerIdentities(peer), peer: verifiedPeer(peer) });
        callback(null, GetAgentResponse.fromPartial({}));
      },
    },
  );
  const seen: { identities: readonly string[]; peer: object | undefined }[] = [];
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const address = { host: '127.0.0.1', port: 0, text: '127.0.0.1:0' };
  const listener = await listen(address, tls, (socket) => {
    peer = socket;
    injector.injectConnection(socket);
  });
  onTestFinished(() => {
    listener.stop();
    grpc.forceShutdown();
    listener.destroy();
  });
  const call = async (clientPair: Partial<Pair> = {}, times = 1) => {
    const channelOptions = { 'grpc.use_local_subchannel_pool': 1 };
    const api = connect({
      address: `127.0.0.1:${listener.port}`,
      tls: tls && { ca: authority.cert, ...clientPair },
      channelOptions,
    });
    for (let n = 0; n < times; n++) await api.agents.getAgent({ agent: { name: 'trader' } });
    await api.close();
    return seen.splice(0);
  };
  return { call };
}

describe('the peer identity of a gRPC call', () => {
  it('consists of the names in a verified certificate', async () => {
    const { call } = await startGrpc(await openTls('optional'));
    expect((await call(trader)).map(({ identities }) => identities)).toEqual([['CN=trader']]);
    expect((await call(desk)).map(({ identities }) => identities)).toEqual([['spiffe://desk/analyst', 'CN=analyst']]);
  });

  it('is empty without a certificate, with a certificate of another authority and over plaintext', async () => {
    const { call } = await startGrpc(await openTls('optional'));
    for (const clientPair of [{}, foreign])
      expect(await call(clientPair)).toEqual([{ identities: [], peer: undefined }]);
    const plaintext = await startGrpc(undefined);
    expect(await plaintext.call()).toEqual([{ identities: [], peer: undefined }]);
  });

  it('is read once per connection', async () => {
    const { call } = await startGrpc(await openTls('required'));
    const [first, second] = await call(trader, 2);
    expect(first?.peer).toBeDefined();
    expect(second?.peer).toBe(first?.peer);
    expect(second?.identities).toBe(first?.identities);
  });
});

describe('the peer identity of a TLS socket', () => {
  /** A server that records the identity of each client and whether the client resumed its session. */
  async function startSockets(tls: ServerTls) {
    const seen: { readonly resumed: boolean; readonly identities: readonly string[] }[] = [];
    const sockets = createServer(tls.options, (socket) => {
      seen.push({ resumed: socket.isSessionReused(), identities: peerIdentities(socket as Socket) });
      socket.end('x');
    });
    tls.serve(sockets);
    await new Promise<void>((resolve) => sockets.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void sockets.close());
    const { port } = sockets.address() as { port: number };
    const once = (clientPair: Partial<Pair>, session?: Buffer) =>
      new Promise<Buffer | undefined>((resolve, reject) => {
        let ticket: Buffer | undefined;
        const socket = connectTls({
          port,
          host: '127.0.0.1',
          ca: authority.cert,
          ...clientPair,
          ...(session && { session }),
        });
        socket.on('session', (session) => {
          ticket = session;
        });
        socket
          .on('error', reject)
          .on('data', () => {})
          .on('close', () => resolve(ticket));
      });
    return { seen, once };
  }

  it.each<['trader' | 'none' | 'foreign', readonly string[]]>([
    ['trader', ['CN=trader']],
    ['none', []],
    ['foreign', []],
  ])('is the same in a resumed session with the client certificate %s', async (certificate, identities) => {
    const { seen, once } = await startSockets(await openTls('optional'));
    const clientPair = { trader, none: {}, foreign }[certificate];
    const session = await once(clientPair);
    await once(clientPair, session);
    expect(seen.map((one) => one.identities)).toEqual([identities, identities]);
    expect(seen.map(({ resumed }) => resumed)).toEqual([false, true]);
  });

  it('is empty over a plaintext socket', () => expect(peerIdentities({} as Socket)).toEqual([]));
});

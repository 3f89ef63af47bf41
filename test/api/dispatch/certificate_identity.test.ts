import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { TlsOptions } from '../../../src/client/index.js';
import { connect } from '../../../src/client/index.js';
import { readSettings } from '../../../src/config.js';
import type { TokenRequest } from '../../../src/domain/token.js';
import { failed } from '../../client/support.js';
import {
  getHttps,
  makeAuthority,
  makeClient,
  makeServer,
  type Pair,
  startTls,
  tlsSettings,
  useFiles,
} from '../../net/support.js';
import { copyFirstStart } from '../../support/command.js';
import { grantAll } from '../../support/service.js';
import { until } from '../../support/until.js';

let authority: Pair;
let server: Pair;
let trader: Pair;
let unbound: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  server = await makeServer(authority);
  trader = await makeClient(authority, 'trader');
  unbound = await makeClient(authority, 'stranger');
});

const ADMIN = { role: 'ROLE_ADMIN' } as const;
const TRADER = { role: 'ROLE_AGENT', agents: ['trader'], certificate_identity: 'CN=trader' } as const;

/** A service with mutual TLS and these tokens. */
async function startMutual(tokenRequests: readonly Partial<TokenRequest>[], TLS_CLIENT_CERT = 'required') {
  const files = await useFiles();
  await files.putPair('server', server);
  const TLS_CLIENT_CA_FILE = await files.put('ca.pem', authority.cert);
  const directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const tokens = await grantAll(readSettings({ DATA_DIR: directory }), tokenRequests);
  const running = await startTls({ ...tlsSettings(files), TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT }, {}, directory);
  return { ...running, tokens };
}

function connectAs(address: string, pair: Pair | undefined, token?: string) {
  const tls: TlsOptions = { ca: authority.cert, ...(pair && { cert: pair.cert, key: pair.key }) };
  const channelOptions = { 'grpc.use_local_subchannel_pool': 1 };
  const client = connect({ address, tls, token, retry: false, deadlineMs: 5_000, channelOptions });
  onTestFinished(() => client.close());
  return client;
}

describe('a client certificate', () => {
  it('authenticates as the token that its identity is bound to, on both ports', async () => {
    const { grpc, http } = await startMutual([ADMIN, TRADER]);
    const { access, configs, agents } = connectAs(grpc, trader);
    expect(await access.getCaller()).toMatchObject({ actor: 'cert:CN=trader', role: 'ROLE_AGENT', agents: ['trader'] });
    await configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(await failed(configs.getPrimaryConfig({ agent: { name: 'market_analyst' } }))).toMatchObject({
      reason: 'AGENT_NOT_ALLOWED',
    });
    expect(await failed(agents.listAgents())).toMatchObject({ reason: 'PERMISSION_DENIED' });
    const tls = { ca: authority.cert, cert: trader.cert, key: trader.key };
    expect(JSON.parse((await getHttps(http, '/v1/caller', tls)).body)).toMatchObject({ actor: 'cert:CN=trader' });
    expect((await getHttps(http, '/metrics', tls)).status).toBe(403);
  });

  it('is rejected with CERTIFICATE_NOT_BOUND when its identity is bound to no token', async () => {
    const { grpc } = await startMutual([ADMIN]);
    const error = await failed(connectAs(grpc, unbound).access.getCaller());
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'CERTIFICATE_NOT_BOUND' });
    expect(error.message).toContain('CN=stranger');
  });

  it('is ignored when the call also sends a token, and is not required when it is optional', async () => {
    const { grpc, tokens } = await startMutual([ADMIN, TRADER], 'optional');
    const text = tokens[0]?.text;
    const actor = `token:${tokens[0]?.id}`;
    expect(await connectAs(grpc, trader, text).access.getCaller()).toMatchObject({ actor });
    expect(await connectAs(grpc, undefined, text).access.getCaller()).toMatchObject({ actor });
    expect(await failed(connectAs(grpc, undefined).access.getCaller())).toMatchObject({ reason: 'TOKEN_REQUIRED' });
  });

  it('is rejected when its token is revoked, also on an open connection, and its streams end', async () => {
    const { grpc, tokens } = await startMutual([ADMIN, TRADER]);
    const tls: TlsOptions = { ca: authority.cert, cert: trader.cert, key: trader.key };
    const resident = connect({ address: grpc, tls, agents: ['trader'], deadlineMs: 5_000 });
    onTestFinished(() => resident.close());
    await resident.ready();
    await connectAs(grpc, unbound, tokens[0]?.text).access.revokeToken({ id: tokens[1]?.id ?? '' });
    await until(() => resident.state.status === 'FAILED');
    expect(resident.state.error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' });
    expect(await failed(resident.access.getCaller())).toMatchObject({ reason: 'TOKEN_REVOKED' });
  });
});

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
  ask,
  makeAuthority,
  makeClient,
  makeServer,
  type Pair,
  startTls,
  tlsSettings,
  until,
  useFiles,
} from '../../net/support.js';
import { copyFirstStart } from '../../support/command.js';
import { grantAll } from '../../support/service.js';

let authority: Pair;
let server: Pair;
let trader: Pair;
let stranger: Pair;
beforeAll(async () => {
  authority = await makeAuthority(30);
  server = await makeServer(authority);
  trader = await makeClient(authority, 'trader');
  stranger = await makeClient(authority, 'stranger');
});

const ADMIN = { role: 'ROLE_ADMIN' } as const;
const TRADER = { role: 'ROLE_AGENT', agents: ['trader'], certificate_identity: 'CN=trader' } as const;

/** A service that wants client certificates, with these tokens. */
async function startMutual(wishes: readonly Partial<TokenRequest>[], TLS_CLIENT_CERT = 'required') {
  const files = await useFiles();
  await files.putPair('server', server);
  const TLS_CLIENT_CA_FILE = await files.put('ca.pem', authority.cert);
  const directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const tokens = await grantAll(readSettings({ DATA_DIR: directory }), wishes);
  const running = await startTls({ ...tlsSettings(files), TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT }, {}, directory);
  return { ...running, tokens };
}

function as(address: string, pair: Pair | undefined, token?: string) {
  const tls: TlsOptions = { ca: authority.cert, ...(pair && { cert: pair.cert, key: pair.key }) };
  const channelOptions = { 'grpc.use_local_subchannel_pool': 1 };
  const client = connect({ address, tls, token, retry: false, deadlineMs: 5_000, channelOptions });
  onTestFinished(() => client.close());
  return client;
}

describe('a client certificate', () => {
  it('is the token that its identity is bound to, over both ports', async () => {
    const { grpc, http } = await startMutual([ADMIN, TRADER]);
    const { access, configs, agents } = as(grpc, trader);
    expect(await access.getCaller()).toMatchObject({ actor: 'cert:CN=trader', role: 'ROLE_AGENT', agents: ['trader'] });
    await configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(await failed(configs.getPrimaryConfig({ agent: { name: 'market_analyst' } }))).toMatchObject({
      reason: 'AGENT_NOT_ALLOWED',
    });
    expect(await failed(agents.listAgents())).toMatchObject({ reason: 'PERMISSION_DENIED' });
    const tls = { ca: authority.cert, cert: trader.cert, key: trader.key };
    expect(JSON.parse((await ask(http, '/v1/caller', tls)).body)).toMatchObject({ actor: 'cert:CN=trader' });
    expect((await ask(http, '/metrics', tls)).status).toBe(403);
  });

  it('that is bound to nothing is nobody, and says so', async () => {
    const { grpc } = await startMutual([ADMIN]);
    const error = await failed(as(grpc, stranger).access.getCaller());
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'CERTIFICATE_NOT_BOUND' });
    expect(error.message).toContain('CN=stranger');
  });

  it('is passed over for a token that is sent beside it, and is not needed for one where it is optional', async () => {
    const { grpc, tokens } = await startMutual([ADMIN, TRADER], 'optional');
    const text = tokens[0]?.text;
    const actor = `token:${tokens[0]?.id}`;
    expect(await as(grpc, trader, text).access.getCaller()).toMatchObject({ actor });
    expect(await as(grpc, undefined, text).access.getCaller()).toMatchObject({ actor });
    expect(await failed(as(grpc, undefined).access.getCaller())).toMatchObject({ reason: 'TOKEN_REQUIRED' });
  });

  it('is refused with its token, also on the connection that stands, and its streams end', async () => {
    const { grpc, tokens } = await startMutual([ADMIN, TRADER]);
    const tls: TlsOptions = { ca: authority.cert, cert: trader.cert, key: trader.key };
    const resident = connect({ address: grpc, tls, agents: ['trader'], deadlineMs: 5_000 });
    onTestFinished(() => resident.close());
    await resident.ready();
    await as(grpc, stranger, tokens[0]?.text).access.revokeToken({ id: tokens[1]?.id ?? '' });
    await until(() => resident.state.status === 'FAILED');
    expect(resident.state.error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REVOKED' });
    expect(await failed(resident.access.getCaller())).toMatchObject({ reason: 'TOKEN_REVOKED' });
  });
});

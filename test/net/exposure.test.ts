import { describe, expect, it } from 'vitest';
import { connect } from '../../src/client/index.js';
import { readSettings } from '../../src/config.js';
import { accessOf, anonymousOf, refuseAnonymous, refusePlaintext, type ServeFlags } from '../../src/net/exposure.js';
import { agentllm, startCommand, useDirectories } from '../support/command.js';
import { makeAuthority, makeServer, tlsSettings, useFiles } from './support.js';

const directory = useDirectories();

const LOCAL = ['127.0.0.1:1', '[::1]:1', 'localhost:1', '127.8.9.10:1', '[::ffff:127.0.0.1]:1'];
const REMOTE = ['0.0.0.0:1', '[::]:1', '192.0.2.1:1', 'agentllm.test:1', 'localhost.agentllm.test:1'];
const booleans = [false, true];

const messageOf = (run: () => void): string | undefined => {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
};

/** The message with which a start is refused; the checks run in the order of the service. */
function refusal(grpc: string, http: string, tls: boolean, token: boolean, flags: ServeFlags): string | undefined {
  const files = tls ? { TLS_CERT_FILE: 'a', TLS_KEY_FILE: 'b' } : {};
  const settings = readSettings({ GRPC_ADDRESS: grpc, HTTP_ADDRESS: http, ...files });
  return messageOf(() => refusePlaintext(settings, flags)) ?? messageOf(() => refuseAnonymous(settings, flags, token));
}

describe('the exposure check', () => {
  it('accepts loopback addresses regardless of TLS, tokens and flags', () => {
    for (const address of LOCAL)
      for (const http of ['off', ...LOCAL])
        for (const tls of booleans)
          for (const token of booleans)
            expect(
              refusal(address, http, tls, token, { allowPlaintext: false, allowAnonymous: false }),
            ).toBeUndefined();
  });

  it('requires TLS and a token on other addresses unless a flag waives each', () => {
    const pairs = REMOTE.flatMap(
      (remote) =>
        [
          [remote, 'off'],
          [remote, LOCAL[0]],
          [LOCAL[0], remote],
          [remote, remote],
        ] as [string, string][],
    );
    for (const [grpc, http] of pairs)
      for (const tls of booleans)
        for (const token of booleans)
          for (const allowPlaintext of booleans)
            for (const allowAnonymous of booleans) {
              const message = refusal(grpc, http, tls, token, { allowPlaintext, allowAnonymous });
              const row = JSON.stringify({ grpc, http, tls, token, allowPlaintext, allowAnonymous });
              if (!tls && !allowPlaintext) {
                expect(message, row).toMatch(/TLS_CERT_FILE and TLS_KEY_FILE \(agentllm cert dev .*--allow-plaintext/);
                expect(message, row).not.toContain('--allow-anonymous');
              } else if (!token && !allowAnonymous) {
                expect(message, row).toMatch(/agentllm token create --role admin.*--allow-anonymous/);
                expect(message, row).not.toContain('--allow-plaintext');
              } else expect(message, row).toBeUndefined();
              if (message) expect(message, row).toContain(REMOTE.includes(grpc) ? grpc : http);
            }
  });

  it('derives the anonymous policy from address and flag, and the access from policy and tokens', () => {
    const flags = { allowPlaintext: true, allowAnonymous: false };
    const policyOf = (GRPC_ADDRESS: string, allowAnonymous: boolean) =>
      anonymousOf(readSettings({ GRPC_ADDRESS }), { ...flags, allowAnonymous });
    for (const local of LOCAL) expect([policyOf(local, false), policyOf(local, true)]).toEqual(['loopback', 'allowed']);
    for (const remote of REMOTE)
      expect([policyOf(remote, false), policyOf(remote, true)]).toEqual(['never', 'allowed']);
    const rows = [
      ['loopback', false, 'this machine'],
      ['loopback', true, 'tokens'],
      ['never', false, 'tokens'],
      ['never', true, 'tokens'],
      ['allowed', false, 'anonymous'],
      ['allowed', true, 'anonymous'],
    ] as const;
    for (const [anonymous, token, access] of rows) expect(accessOf(anonymous, token)).toBe(access);
  });
});

describe('agentllm serve', () => {
  it('refuses to start on a remote address without a token and prints how to create one', async () => {
    const files = await useFiles();
    await files.putPair('server', await makeServer(await makeAuthority(30)));
    const env = { DATA_DIR: await directory.started(), GRPC_ADDRESS: '0.0.0.0:0', ...tlsSettings(files) };
    const ended = await agentllm(['serve'], env).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('agentllm: 0.0.0.0:0 can be reached from other machines, and no token exists');
    expect(ended.stderr).not.toContain('    at ');
  });

  it('starts on a remote address with TLS and --allow-anonymous, and prints the access', async () => {
    const files = await useFiles();
    const authority = await makeAuthority(30);
    await files.putPair('server', await makeServer(authority));
    const env = { DATA_DIR: await directory.started(), GRPC_ADDRESS: '0.0.0.0:0', ...tlsSettings(files) };
    const running = await startCommand(env, ['--allow-anonymous']);
    await running.untilOutput(/access {4}open to every caller \(--allow-anonymous\)/);
    expect(running.output()).toMatch(/try: grpcurl -cacert ca\.pem 0\.0\.0\.0:\d+ list/);
    const api = connect({ address: `127.0.0.1:${running.port}`, tls: { ca: authority.cert } });
    await api.agents.listAgents();
    await api.close();
  });

  it('refuses unusable certificate files before it opens the store', async () => {
    const files = await useFiles();
    const DATA_DIR = await directory();
    const ended = await agentllm(['serve'], { DATA_DIR, ...tlsSettings(files) }).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(`agentllm: TLS_CERT_FILE ${files.path('server.pem')} does not exist\n`);
    expect(ended.stderr).toContain(`agentllm: TLS_KEY_FILE ${files.path('server.key')} does not exist\n`);
    expect(ended.stderr).not.toContain('    at ');
  });
});

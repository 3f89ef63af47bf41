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

const caught = (run: () => void): string | undefined => {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
};

/** Why a start is refused, in the order in which it is found out. */
function refusal(grpc: string, http: string, tls: boolean, token: boolean, flags: ServeFlags): string | undefined {
  const files = tls ? { TLS_CERT_FILE: 'a', TLS_KEY_FILE: 'b' } : {};
  const settings = readSettings({ GRPC_ADDRESS: grpc, HTTP_ADDRESS: http, ...files });
  return caught(() => refusePlaintext(settings, flags)) ?? caught(() => refuseAnonymous(settings, flags, token));
}

describe('what is exposed', () => {
  it('is nothing on this machine, whatever else is set', () => {
    for (const address of LOCAL)
      for (const http of ['off', ...LOCAL])
        for (const tls of booleans)
          for (const token of booleans)
            expect(
              refusal(address, http, tls, token, { allowPlaintext: false, allowAnonymous: false }),
            ).toBeUndefined();
  });

  it('elsewhere wants TLS and a token, or to be told for each in so many words', () => {
    const pairs = REMOTE.flatMap(
      (far) =>
        [
          [far, 'off'],
          [far, LOCAL[0]],
          [LOCAL[0], far],
          [far, far],
        ] as [string, string][],
    );
    for (const [grpc, http] of pairs)
      for (const tls of booleans)
        for (const token of booleans)
          for (const allowPlaintext of booleans)
            for (const allowAnonymous of booleans) {
              const why = refusal(grpc, http, tls, token, { allowPlaintext, allowAnonymous });
              const row = JSON.stringify({ grpc, http, tls, token, allowPlaintext, allowAnonymous });
              if (!tls && !allowPlaintext) {
                expect(why, row).toMatch(/TLS_CERT_FILE and TLS_KEY_FILE \(agentllm cert dev .*--allow-plaintext/);
                expect(why, row).not.toContain('--allow-anonymous');
              } else if (!token && !allowAnonymous) {
                expect(why, row).toMatch(/agentllm token create --role admin.*--allow-anonymous/);
                expect(why, row).not.toContain('--allow-plaintext');
              } else expect(why, row).toBeUndefined();
              if (why) expect(why, row).toContain(REMOTE.includes(grpc) ? grpc : http);
            }
  });

  it('decides whether nobody in particular is let in', () => {
    const flags = { allowPlaintext: true, allowAnonymous: false };
    const of = (GRPC_ADDRESS: string, allowAnonymous: boolean) =>
      anonymousOf(readSettings({ GRPC_ADDRESS }), { ...flags, allowAnonymous });
    for (const near of LOCAL) expect([of(near, false), of(near, true)]).toEqual(['loopback', 'allowed']);
    for (const far of REMOTE) expect([of(far, false), of(far, true)]).toEqual(['never', 'allowed']);
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
  it('refuses to be exposed without a token, having TLS, and says how to make one', async () => {
    const files = await useFiles();
    await files.putPair('server', await makeServer(await makeAuthority(30)));
    const env = { DATA_DIR: await directory.started(), GRPC_ADDRESS: '0.0.0.0:0', ...tlsSettings(files) };
    const ended = await agentllm(['serve'], env).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('agentllm: 0.0.0.0:0 can be reached from other machines, and no token exists');
    expect(ended.stderr).not.toContain('    at ');
  });

  it('is exposed with TLS when everybody may come in, and says so', async () => {
    const files = await useFiles();
    const authority = await makeAuthority(30);
    await files.putPair('server', await makeServer(authority));
    const env = { DATA_DIR: await directory.started(), GRPC_ADDRESS: '0.0.0.0:0', ...tlsSettings(files) };
    const running = await startCommand(env, ['--allow-anonymous']);
    await running.says(/access {4}open to every caller \(--allow-anonymous\)/);
    expect(running.output()).toMatch(/try: grpcurl -cacert ca\.pem 0\.0\.0\.0:\d+ list/);
    const api = connect({ address: `127.0.0.1:${running.port}`, tls: { ca: authority.cert } });
    await api.agents.listAgents();
    await api.close();
  });

  it('refuses certificates that cannot be used before it opens anything', async () => {
    const files = await useFiles();
    const DATA_DIR = await directory();
    const ended = await agentllm(['serve'], { DATA_DIR, ...tlsSettings(files) }).ended;
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(`agentllm: TLS_CERT_FILE ${files.path('server.pem')} does not exist\n`);
    expect(ended.stderr).toContain(`agentllm: TLS_KEY_FILE ${files.path('server.key')} does not exist\n`);
    expect(ended.stderr).not.toContain('    at ');
  });
});

import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Metadata, status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { AgentLLMError, connect } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { startProxy } from '../support/proxy.js';
import { unique, useService } from '../support/service.js';
import { until } from '../support/until.js';
import { connectTo, failed, failWith, SOON_MS, startFake, timed } from './support.js';

/** Warnings that Node prints while a test runs. */
function useWarnings(): Error[] {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  onTestFinished(() => void process.off('warning', onWarning));
  return warnings;
}

describe('a call', () => {
  const service = useService('embedded');
  const client = () => connectTo(`127.0.0.1:${service().port}`);

  it('accepts a partial request or none, and returns a typed response', async () => {
    const { agents, configs } = client();
    const { config, revision } = await configs.getPrimaryConfig({ agent: { name: 'trader' } });
    expect(config).toMatchObject({ provider: 'openai', model_name: 'gpt-4', temperature: 0.7 });
    expect(typeof revision).toBe('bigint');
    expect(config?.created_at).toBeInstanceOf(Date);
    expect((await agents.listAgents()).agents.length).toBeGreaterThan(10);
    expect((await agents.listAgents({ agent_type: undefined, page_size: 1 })).agents).toHaveLength(1);
  });

  it('distinguishes 0 from an absent field', async () => {
    const { agents, configs } = client();
    const { agent } = await agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    const model = { provider: 'openai', model_name: 'gpt-4' };
    const created = await configs.createConfig({ agent: { id: agent?.id }, config: { ...model, temperature: 0 } });
    expect(created.config?.temperature).toBe(0);
    expect(created.config?.top_p).toBeUndefined();
  });

  it('is available for the methods of every service', () => {
    const { access, agents, configs, providers, credentials } = client();
    expect(Object.keys(access)).toContain('createToken');
    expect(Object.keys(agents)).toContain('createAgent');
    expect(Object.keys(configs)).toContain('upsertPrimaryConfig');
    expect(Object.keys(providers)).toContain('listModels');
    expect(Object.keys(credentials)).toContain('createCredential');
  });

  it('rejects its promise when the request cannot be encoded', async () => {
    const { agents, configs } = client();
    const impossible = { config: { id: 'thirteen' as unknown as number } };
    const error = await failed(configs.updateConfig(impossible));
    expect(error).toMatchObject({
      code: 'INVALID_ARGUMENT',
      reason: undefined,
      method: 'agentllm.v1.AgentLLMConfigService/UpdateConfig',
    });
    expect(error.message).toMatch(/^The request cannot be sent: .*int ?32/);
    expect((await failed(agents.getAgent(null as unknown as object))).code).toBe('INVALID_ARGUMENT');
    const date = { agent: { created_at: 'yesterday' as unknown as Date } };
    expect((await failed(agents.createAgent(date))).code).toBe('INVALID_ARGUMENT');
  });

  it('uses the address from the environment when none is passed', async () => {
    process.env['AGENTLLM_ADDRESS'] = `127.0.0.1:${service().port}`;
    onTestFinished(() => void delete process.env['AGENTLLM_ADDRESS']);
    const agentllm = connect();
    onTestFinished(() => agentllm.close());
    expect((await agentllm.agents.listAgents()).revision).toBeGreaterThan(0n);
  });

  it('succeeds when 500 calls share one connection concurrently', async () => {
    const { agents } = client();
    const responses = await Promise.all(
      Array.from({ length: 500 }, () => agents.getAgent({ agent: { name: 'trader' } })),
    );
    expect(new Set(responses.map(({ agent }) => agent?.id)).size).toBe(1);
  });

  it('accepts a response that exceeds the gRPC default limit of 4 MiB', async () => {
    const { address } = await startFake((_, done) =>
      done(null, Buffer.concat([tag(50 * 2 ** 20), Buffer.alloc(50 * 2 ** 20)])),
    );
    await connectTo(address).agents.getAgent({}, { deadlineMs: 30_000 });
  });
});

/** The tag and the length of an unknown field with the given number of bytes. */
function tag(length: number): Buffer {
  const bytes = [0xfa, 0x7f];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | (rest > 127 ? 128 : 0));
  return Buffer.from(bytes);
}

describe('the deadline', () => {
  it('ends a call when the server does not respond', async () => {
    const fake = await startFake(() => {});
    const { agents } = connectTo(fake.address, { deadlineMs: 300 });
    const { ms, value } = await timed(failed(agents.listAgents()));
    expect(value).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: undefined });
    expect(ms).toBeGreaterThan(250);
    expect(ms).toBeLessThan(SOON_MS);
    await until(() => fake.cancelled === 1);
  });

  it('ends a call when the network is silent, before and after the connection is established', async () => {
    const fake = await startFake();
    const proxy = await startProxy(fake.port);
    const { agents } = connectTo(`127.0.0.1:${proxy.port}`, { deadlineMs: 300 });
    proxy.freeze();
    expect((await timed(failed(agents.listAgents()))).ms).toBeLessThan(SOON_MS);
    proxy.thaw();
    await agents.listAgents({}, { deadlineMs: 30_000 });
    proxy.freeze();
    const { ms, value } = await timed(failed(agents.listAgents()));
    expect(value.code).toBe('DEADLINE_EXCEEDED');
    expect(ms).toBeLessThan(SOON_MS);
  });

  it('of a call replaces the deadline of the connection', async () => {
    let responds = true;
    const { address } = await startFake((_, done) => void setTimeout(() => responds && done(null, {}), 400));
    const { agents } = connectTo(address, { deadlineMs: 100 });
    await agents.listAgents({}, { deadlineMs: 30_000 });
    await agents.listAgents({}, { deadlineMs: Number.POSITIVE_INFINITY });
    responds = false;
    const message = (ms: number) => `No response from ${address} within ${ms} ms`;
    expect(await failed(agents.listAgents())).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: message(100) });
    const shorter = await failed(agents.listAgents({}, { deadlineMs: 50 }));
    expect(shorter).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: message(50) });
  });

  it.each([0, -1, -1e12, Number.NEGATIVE_INFINITY])(
    'fails the call immediately when it is %d ms',
    async (deadlineMs) => {
      const { address } = await startFake(() => {});
      const { ms, value } = await timed(failed(connectTo(address).agents.listAgents({}, { deadlineMs })));
      expect(value.code).toBe('DEADLINE_EXCEEDED');
      expect(ms).toBeLessThan(SOON_MS);
    },
  );

  it('is rejected when it is not a number', async () => {
    const { address } = await startFake();
    for (const deadlineMs of [Number.NaN, '5' as unknown as number]) {
      expect((await failed(connectTo(address).agents.listAgents({}, { deadlineMs }))).code).toBe('INVALID_ARGUMENT');
      expect(() => connect({ address, deadlineMs })).toThrow(TypeError);
    }
  });

  it('may be the longest representable duration without a warning', async () => {
    const warnings = useWarnings();
    const { address } = await startFake();
    const { agents } = connectTo(address, { token: async () => 'secret' });
    for (const deadlineMs of [2 ** 31, 1e15, Number.MAX_VALUE, Number.POSITIVE_INFINITY])
      await agents.listAgents({}, { deadlineMs });
    expect(warnings).toEqual([]);
  });

  it('includes the time that the token function takes', async () => {
    const fake = await startFake();
    const { agents } = connectTo(fake.address, { token: () => new Promise(() => {}), deadlineMs: 200 });
    const { ms, value } = await timed(failed(agents.listAgents()));
    expect(value.code).toBe('DEADLINE_EXCEEDED');
    expect(value.message).toContain('token');
    expect(ms).toBeLessThan(SOON_MS);
    expect(fake.calls).toHaveLength(0);
  });
});

describe('an abort signal', () => {
  it('prevents a call from being sent when it is already aborted', async () => {
    const fake = await startFake();
    const { agents } = connectTo(fake.address);
    const reason = new Error('no more');
    const error = await failed(agents.createAgent({}, { signal: AbortSignal.abort(reason) }));
    expect(error).toMatchObject({ code: 'CANCELLED', cause: reason, reason: undefined });
    await sleep(50);
    expect(fake.calls).toHaveLength(0);
  });

  it('ends a running call at the client and at the server', async () => {
    const fake = await startFake(() => {});
    const { agents } = connectTo(fake.address);
    const controller = new AbortController();
    const call = failed(agents.listAgents({}, { signal: controller.signal }));
    await until(() => fake.calls.length === 1);
    controller.abort('enough');
    expect(await call).toMatchObject({ code: 'CANCELLED', cause: 'enough', message: 'The caller aborted the call' });
    await until(() => fake.cancelled === 1);
  });

  it('ends a call that waits for its connection, for its token or for a retry', async () => {
    const proxy = await startProxy((await startFake()).port);
    proxy.freeze();
    const failing = await startFake((_, done) => done(failWith(status.UNAVAILABLE, 'not now')));
    let tokenCalls = 0;
    const token = () => {
      tokenCalls++;
      return new Promise<string>(() => {});
    };
    const waiting = [
      connectTo(`127.0.0.1:${proxy.port}`),
      connectTo(`127.0.0.1:${await freePort()}`, { token }),
      connectTo(failing.address),
    ];
    const controller = new AbortController();
    const calls = waiting.map(({ agents }) => failed(agents.listAgents({}, { signal: controller.signal })));
    await until(() => proxy.links.size === 1 && tokenCalls === 1 && failing.calls.length === 1);
    controller.abort();
    const { ms, value } = await timed(Promise.all(calls));
    expect(value.map(({ code }) => code)).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED']);
    expect(ms).toBeLessThan(SOON_MS);
  });

  it('is reported as a TimeoutError in the cause when it has a timeout', async () => {
    const { address } = await startFake(() => {});
    const error = await failed(connectTo(address).agents.listAgents({}, { signal: AbortSignal.timeout(100) }));
    expect(error.code).toBe('CANCELLED');
    expect((error.cause as Error).name).toBe('TimeoutError');
  });

  it('has no effect when it aborts after the call', async () => {
    const { address } = await startFake();
    const { agents } = connectTo(address);
    const controller = new AbortController();
    await agents.listAgents({}, { signal: controller.signal });
    controller.abort();
    await agents.listAgents();
  });

  it('does not change the error when it aborts after the failure', async () => {
    const { address } = await startFake((_, done) => done({ code: status.NOT_FOUND, details: 'not here' }));
    const controller = new AbortController();
    const call = failed(connectTo(address).agents.listAgents({}, { signal: controller.signal }));
    call.then(() => controller.abort());
    expect((await call).code).toBe('NOT_FOUND');
  });

  it('has no listeners left after thousands of calls, and causes no Node warning about listeners', async () => {
    const warnings = useWarnings();
    const { address } = await startFake((call, done) =>
      call.metadata.get('fail').length > 0 ? done({ code: status.ABORTED }) : done(null, {}),
    );
    const { signal } = new AbortController();
    const { agents } = connectTo(address, { token: async () => 'secret' });
    for (let round = 0; round < 20; round++) {
      const calls = Array.from({ length: 200 }, (_, at) =>
        agents.listAgents({}, { signal, headers: at % 3 === 0 ? { fail: 'yes' } : {} }).catch(() => {}),
      );
      expect(getEventListeners(signal, 'abort').length).toBeLessThan(10);
      await Promise.all(calls);
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('ends all calls that share it', async () => {
    const fake = await startFake(() => {});
    const { agents } = connectTo(fake.address);
    const controller = new AbortController();
    const calls = Array.from({ length: 50 }, () => failed(agents.listAgents({}, { signal: controller.signal })));
    await until(() => fake.calls.length === 50);
    controller.abort();
    expect(new Set((await Promise.all(calls)).map(({ code }) => code))).toEqual(new Set(['CANCELLED']));
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });
});

describe('headers', () => {
  it('are sent with the call, and -bin values are decoded from base64', async () => {
    const fake = await startFake();
    const { agents } = connectTo(fake.address);
    await agents.listAgents({}, { headers: { 'x-trace': 'a b', 'X-Upper': 'yes', 'trace-bin': 'AAEC/w==' } });
    const [headers] = fake.calls;
    expect(headers?.get('x-trace')).toEqual(['a b']);
    expect(headers?.get('x-upper')).toEqual(['yes']);
    expect(headers?.get('trace-bin')).toEqual([Buffer.from([0, 1, 2, 255])]);
    await agents.listAgents();
    expect(fake.calls[1]?.get('x-trace')).toEqual([]);
  });

  it.each<Record<string, string>>([
    { connection: 'close' },
    { ':path': '/other' },
    { 'grpc-timeout': '1S' },
    { 'a header': 'x' },
    { '': 'x' },
    { 'x-text': 'ä' },
    { 'x-text': 'a\r\nb' },
    { 'x-text': 7 as unknown as string },
    { te: 'gzip' },
    { host: 'elsewhere' },
  ])('are rejected before anything is sent when they are %j', async (headers) => {
    const fake = await startFake();
    const { ms, value } = await timed(failed(connectTo(fake.address).agents.listAgents({}, { headers })));
    expect(value.code).toBe('INVALID_ARGUMENT');
    expect(ms).toBeLessThan(SOON_MS);
    expect(fake.calls).toHaveLength(0);
  });
});

describe('the token', () => {
  const authorization = (metadata: Metadata | undefined) => metadata?.get('authorization');

  it('is sent with each call, and a token function is called for each call', async () => {
    const fake = await startFake();
    await connectTo(fake.address, { token: 'secret' }).agents.listAgents();
    let tokenCalls = 0;
    const sync = connectTo(fake.address, { token: () => `t${++tokenCalls}` });
    await sync.agents.listAgents();
    await sync.agents.listAgents();
    await connectTo(fake.address, { token: async () => `t${++tokenCalls}` }).agents.listAgents();
    await connectTo(fake.address).agents.listAgents();
    expect(fake.calls.map(authorization)).toEqual([['Bearer secret'], ['Bearer t1'], ['Bearer t2'], ['Bearer t3'], []]);
  });

  it('is read from the environment when none is passed', async () => {
    process.env['AGENTLLM_TOKEN'] = 'from-env';
    onTestFinished(() => void delete process.env['AGENTLLM_TOKEN']);
    const fake = await startFake();
    await connectTo(fake.address).agents.listAgents();
    await connectTo(fake.address, { token: 'given' }).agents.listAgents();
    await connectTo(fake.address, { token: '' }).agents.listAgents();
    expect(fake.calls.map(authorization)).toEqual([['Bearer from-env'], ['Bearer given'], []]);
    expect(() => connect('agentllm.example.com:443')).toThrow(/in plaintext/);
  });

  it('is replaced by an authorization header of the call', async () => {
    const fake = await startFake();
    await connectTo(fake.address, { token: 'a' }).agents.listAgents({}, { headers: { authorization: 'Basic b' } });
    expect(fake.calls.map(authorization)).toEqual([['Basic b']]);
  });

  it('is sent without surrounding whitespace', async () => {
    const fake = await startFake();
    await connectTo(fake.address, { token: 'secret\n' }).agents.listAgents();
    await connectTo(fake.address, { token: () => ' secret\r\n' }).agents.listAgents();
    expect(fake.calls.map(authorization)).toEqual([['Bearer secret'], ['Bearer secret']]);
  });

  it('fails only the calls for which the token function throws', async () => {
    const fake = await startFake();
    const cause = new Error('the vault is sealed');
    let broken = true;
    const token = async () => {
      if (broken) throw cause;
      return 'secret';
    };
    const { agents } = connectTo(fake.address, { token });
    const error = await failed(agents.createAgent());
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: undefined, cause });
    expect(error.message).toContain('the vault is sealed');
    broken = false;
    await agents.createAgent();
    expect(fake.calls).toHaveLength(1);
    const throwing = () => {
      throw cause;
    };
    expect(await failed(connectTo(fake.address, { token: throwing }).agents.listAgents())).toMatchObject({ cause });
  });

  it('is in no error message when it is invalid', async () => {
    const fake = await startFake();
    for (const wrong of ['hush\u0000hush', 'hush\nhush', 'hushä', 5 as unknown as string, '', ' ']) {
      if (wrong !== '') expect(() => connect({ address: fake.address, token: wrong })).toThrow(TypeError);
      const error = await failed(connectTo(fake.address, { token: () => wrong }).agents.listAgents());
      expect(String(error) + JSON.stringify(error) + String(error.cause)).not.toContain('hush');
    }
    expect(fake.calls).toHaveLength(0);
  });

  it.each([
    '10.0.0.1:50051',
    'agentllm.internal:50051',
    'localhost.evil.com:50051',
    '127.0.0.1.evil.com:50051',
    'dns:///agentllm.internal:50051',
    'dns://8.8.8.8/localhost:50051',
    'ipv4:127.0.0.1:1,10.0.0.1:2',
    '[2001:db8::1]:50051',
    '0.0.0.0:50051',
  ])('is not sent to %s in plaintext', (address) => {
    expect(() => connect({ address, token: 'secret' })).toThrow(/in plaintext/);
    expect(() => connect({ address, token: async () => 'secret' })).toThrow(/in plaintext/);
    connect({ address, token: 'secret', allowPlaintextToken: true }).close();
    connect({ address, token: 'secret', tls: true }).close();
    connect({ address }).close();
  });

  it.each([
    'localhost:50051',
    'LOCALHOST:1',
    '127.0.0.1:50051',
    '127.8.9.1',
    '[::1]:50051',
    'unix:/tmp/x',
    'dns:///localhost:1',
  ])('may be sent to %s in plaintext', (address) => connect({ address, token: 'secret' }).close());

  it('is sent to a local address without the proxy of the environment', async () => {
    process.env['http_proxy'] = `http://127.0.0.1:${await freePort()}`;
    onTestFinished(() => void delete process.env['http_proxy']);
    const fake = await startFake();
    await connectTo(fake.address, { token: 'secret' }).agents.listAgents();
  });
});

describe('an address', () => {
  it.each([
    'http://127.0.0.1:50051',
    'https://agentllm.example.com',
    '',
    ' ',
    '18451',
    ':18451',
    '127.0.0.1:18451/',
    'host:99999',
    'grpc://host:1',
    '::1:50051',
    '[::1',
  ])('is rejected immediately when it is %j', (address) => {
    expect(() => connect(address)).toThrow(TypeError);
    expect(() => connect(address)).toThrow('is no host:port, such as 127.0.0.1:50051');
  });

  it.each([
    'localhost',
    'agentllm.example.com:50051',
    '[::1]:50051',
    '::1',
    'dns:///agentllm.internal:50051',
    'unix:/run/agentllm.sock',
    'ipv4:127.0.0.1:1,127.0.0.1:2',
    'ipv6:[::1]:50051',
  ])('is accepted when it is %s', (address) => connect(address).close());
});

describe('ready', () => {
  const service = useService('embedded');

  it('rejects with INVALID_ARGUMENT when its timeout is not a number', async () => {
    const { ready } = connectTo(`127.0.0.1:${service().port}`);
    expect(await failed(ready(Number.NaN))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('resolves when the service is serving', async () => {
    await connectTo(`127.0.0.1:${service().port}`).ready();
  });

  it('waits until the service becomes reachable', async () => {
    const proxy = await startProxy(service().port);
    proxy.freeze();
    let isReady = false;
    const ready = connectTo(`127.0.0.1:${proxy.port}`)
      .ready(30_000)
      .then(() => {
        isReady = true;
      });
    await until(() => proxy.links.size === 1);
    expect(isReady).toBe(false);
    proxy.thaw();
    await ready;
  });

  it('rejects with the cause when its timeout expires', async () => {
    const port = await freePort();
    const { ms, value } = await timed(failed(connectTo(`127.0.0.1:${port}`).ready(500)));
    expect(value.code).toBe('UNAVAILABLE');
    expect(value.message).toContain(`127.0.0.1:${port}`);
    expect(value.message).toContain('ECONNREFUSED');
    expect(ms).toBeLessThan(SOON_MS);
    const silent = await startProxy(service().port);
    silent.freeze();
    expect((await timed(failed(connectTo(`127.0.0.1:${silent.port}`).ready(300)))).ms).toBeLessThan(SOON_MS);
  });

  it('resolves when the server does not implement the health service', async () => {
    const { address } = await startFake();
    await connectTo(address).ready();
  });
});

describe('close', () => {
  it('lets running calls complete and rejects later ones', async () => {
    const fake = await startFake((_, done) => void setTimeout(() => done(null, {}), 300));
    const agentllm = connectTo(fake.address);
    const calls = [agentllm.agents.listAgents(), agentllm.agents.listAgents()];
    agentllm.close();
    const rejected = await failed(agentllm.agents.listAgents());
    expect(rejected).toMatchObject({ code: 'CANCELLED', method: 'agentllm.v1.AgentService/ListAgents' });
    expect(rejected.message).toContain('closed');
    await Promise.all(calls);
    agentllm.close();
    expect((await failed(agentllm.agents.listAgents())).code).toBe('CANCELLED');
    expect(fake.calls).toHaveLength(2);
  });

  it('lets a call that waits for a retry run until its deadline', async () => {
    const agentllm = connectTo(`127.0.0.1:${await freePort()}`);
    const call = failed(agentllm.agents.listAgents({}, { deadlineMs: 400 }));
    agentllm.close();
    expect(['DEADLINE_EXCEEDED', 'UNAVAILABLE']).toContain((await call).code);
    const fake = await startFake((_, done) =>
      done(fake.calls.length === 1 ? failWith(status.UNAVAILABLE, 'not now') : null, {}),
    );
    const retrying = connectTo(fake.address);
    const retried = retrying.agents.listAgents();
    await until(() => fake.calls.length === 1);
    retrying.close();
    await retried;
    expect(fake.calls).toHaveLength(2);
  });

  it('rejects a pending ready()', async () => {
    const agentllm = connectTo(`127.0.0.1:${await freePort()}`);
    const ready = failed(agentllm.ready(30_000));
    agentllm.close();
    expect((await ready).code).toBe('CANCELLED');
    expect((await failed(agentllm.ready())).code).toBe('CANCELLED');
  });

  it('happens at the end of an `await using` block, after the calls have completed', async () => {
    const fake = await startFake((_, done) => void setTimeout(() => done(null, {}), 200));
    let ended = false;
    let call: Promise<unknown>;
    {
      await using agentllm = connect(fake.address);
      call = agentllm.agents.listAgents().then(() => {
        ended = true;
      });
    }
    expect(ended).toBe(true);
    await call;
  });

  it('of one connection does not affect other connections', async () => {
    const { address } = await startFake();
    const [one, other] = [connect(address), connect(address)];
    onTestFinished(() => other.close());
    await Promise.all([one.agents.listAgents(), other.agents.listAgents()]);
    one.close();
    await other.agents.listAgents();
    expect(await failed(one.agents.listAgents())).toBeInstanceOf(AgentLLMError);
  });
});

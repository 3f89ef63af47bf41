import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withLimits } from '../../feed/support.js';
import { send } from '../../http/support.js';
import { type FakeProvider, KEY, startFakeProvider, startTcp } from '../../providers/fake_provider.js';
import { fakeResolver } from '../../providers/fake_resolver.js';
import {
  checked,
  configAt,
  ending,
  environment,
  provide,
  short,
  text,
  validated,
} from '../../support/checked_provider.js';
import { type Clients, connectPatiently, failure, useService } from '../../support/service.js';
import { until } from '../../support/until.js';
import { present } from './support.js';

/** The delay beyond the guaranteed time that a loaded machine may add. */
const GRACE_MS = 5_000;

async function startHangingProvider(): Promise<FakeProvider> {
  const fake = await startFakeProvider('openai');
  fake.on('*', () => undefined);
  return fake;
}

describe('a provider that hangs', () => {
  const service = useService('embedded', environment);

  let patient: Clients;
  beforeAll(() => {
    patient = connectPatiently(service().port);
  });
  afterAll(() => patient?.close());

  // A fifth of the time remains to save and send the result. The service would fail a late call itself.
  it('results in UNREACHABLE within the deadline of the call, and within 10 s at most', async () => {
    const provider = await provide(service(), await startHangingProvider());
    const { id } = await configAt(service(), provider);
    const outcomes = await Promise.all(
      [5_000, 9_900, 10_100, 15_000, 30_000].flatMap((deadlineMs) =>
        [
          async () => (await patient.configs.checkConfigHealth({ id }, { deadlineMs })).health?.status,
          async () =>
            (await patient.providers.validateApiKey({ provider, api_key: KEY }, { deadlineMs })).check?.status,
        ].map(async (call) => {
          const started = performance.now();
          const status = await call().catch((error: Error) => `failed: ${error.message}`);
          const elapsedMs = performance.now() - started;
          return { deadlineMs, status, late: elapsedMs > 10_000 + GRACE_MS };
        }),
      ),
    );
    for (const outcome of outcomes)
      expect(outcome).toEqual({ ...outcome, status: 'CHECK_STATUS_UNREACHABLE', late: false });
  });

  it.each([1, 20, 100, 250])(
    'results in a response or DEADLINE_EXCEEDED with a deadline of %d ms',
    async (deadlineMs) => {
      const provider = await provide(service(), await startHangingProvider());
      const { id } = await configAt(service(), provider);
      for (const call of [
        service().configs.checkConfigHealth({ id }, { deadlineMs }),
        service().providers.validateApiKey({ provider, api_key: KEY }, { deadlineMs }),
      ])
        expect(await ending(call)).toMatch(/^OK$|^4 /);
      expect((await service().configs.getConfig({ id })).config?.id).toBe(id);
    },
  );

  it.each([100, 600, 2_500])(
    'results in a response within a deadline of %d ms (best of several)',
    async (deadlineMs) => {
      const provider = await provide(service(), await startHangingProvider());
      const { id } = await configAt(service(), provider);
      const isOk = async (call: Promise<unknown>) => (await ending(call)) === 'OK';
      await until(() => isOk(patient.configs.checkConfigHealth({ id }, { deadlineMs })));
      await until(() => isOk(patient.providers.validateApiKey({ provider, api_key: KEY }, { deadlineMs })));
    },
  );

  it('results in UNREACHABLE over HTTP within 10 s', async () => {
    const provider = await provide(service(), await startHangingProvider());
    const { id } = await configAt(service(), provider);
    const port = present(service().running.httpPort);
    const started = performance.now();
    const [health, key] = await Promise.all([
      send(port, 'POST', `/v1/configs/${id}:checkHealth`, { body: {} }),
      send(port, 'POST', `/v1/providers/${provider}:validateApiKey`, { body: { api_key: KEY } }),
    ]);
    expect(performance.now() - started).toBeLessThan(10_000 + GRACE_MS);
    expect([health.status, key.status]).toEqual([200, 200]);
    expect(health.json).toMatchObject({ health: { status: 'CHECK_STATUS_UNREACHABLE' } });
    expect(key.json).toMatchObject({ check: { status: 'CHECK_STATUS_UNREACHABLE' } });
    expect(health.text + key.text).not.toContain(KEY);
  });

  it('does not affect the result of another hop', async () => {
    const [good, bad] = [await startFakeProvider('openai'), await startHangingProvider()];
    const [provider, fallback_provider] = [await provide(service(), good), await provide(service(), bad)];
    const { id } = await configAt(service(), provider);
    await service().configs.updateConfig({ config: { id, fallback_provider, fallback_model: 'gpt-4o' } });
    withLimits({ providerCheckMs: 2_000 });
    const forward = await checked(service(), id);
    expect(forward.hops.map((hop) => short(hop.status))).toEqual(['OK', 'UNREACHABLE']);
    const { id: back } = await configAt(service(), fallback_provider);
    await service().configs.updateConfig({
      config: { id: back, fallback_provider: provider, fallback_model: 'gpt-4o' },
    });
    const backward = await checked(service(), back);
    expect(backward.hops.map((hop) => short(hop.status))).toEqual(['UNREACHABLE', 'OK']);
  });

  it('results in UNREACHABLE for a trickled body, endless headers, a silent resolver and an unanswered TLS handshake', async () => {
    const slowBody = await startFakeProvider('openai');
    slowBody.on('*', (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      const timer = setInterval(() => response.write(' '), 100);
      response.on('close', () => clearInterval(timer));
    });
    const endlessHeaders = await startTcp((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      const timer = setInterval(() => socket.write(`x-${Date.now()}: y\r\n`), 100);
      socket.on('close', () => clearInterval(timer));
    });
    const continues = await startTcp((socket) => {
      const timer = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 100);
      socket.on('close', () => clearInterval(timer));
    });
    const silent = await startTcp(() => undefined);
    withLimits({ providerCheckMs: 2_000 });
    const resolver = fakeResolver({ 'silent.example.com': 'silence' });
    try {
      const urls = [
        slowBody.provider.base_url,
        `http://127.0.0.1:${endlessHeaders.port}/v1`,
        `http://127.0.0.1:${continues.port}/v1`,
        `https://127.0.0.1:${silent.port}/v1`,
        'https://silent.example.com/v1',
      ];
      const statuses = await Promise.all(
        urls.map(async (url) => {
          const provider = await provide(service(), url);
          const { id } = await configAt(service(), provider, 'gpt-4o', KEY);
          return [
            short((await checked(service(), id)).status),
            short(present((await service().providers.validateApiKey({ provider, api_key: KEY })).check).status),
          ];
        }),
      );
      // The provider is reachable, but no complete response arrives.
      expect(statuses).toEqual(urls.map(() => ['UNREACHABLE', 'UNREACHABLE']));
    } finally {
      resolver.restore();
    }
  });
});

describe('a cancelled check', () => {
  const service = useService('embedded', environment);

  it('ends the request to the provider, returns CANCELLED and stores no result', async () => {
    const sockets: { open: boolean }[] = [];
    const silent = await startTcp((socket) => {
      const seen = { open: true };
      sockets.push(seen);
      socket.on('data', () => undefined);
      socket.on('close', () => {
        seen.open = false;
      });
    });
    const provider = await provide(service(), `http://127.0.0.1:${silent.port}/v1`);
    const { id } = await configAt(service(), provider);
    for (const call of [
      (signal: AbortSignal) => service().configs.checkConfigHealth({ id }, { signal }),
      (signal: AbortSignal) => service().providers.validateApiKey({ provider, api_key: KEY }, { signal }),
    ]) {
      const caller = new AbortController();
      const before = sockets.length;
      const started = performance.now();
      const failed = failure(call(caller.signal));
      await until(() => sockets.length > before);
      caller.abort();
      expect((await failed).code).toBe(1);
      await until(() => !sockets.some(({ open }) => open));
      // The cancellation ended the request, not the limit of 10 s.
      expect(performance.now() - started).toBeLessThan(9_000);
    }
    await sleep(200);
    expect((await service().configs.listConfigHealth({ config_id: id })).health).toEqual([]);
  });

  it('ends the request to the provider when an HTTP client disconnects', async () => {
    let open = 0;
    const silent = await startTcp((socket) => {
      open += 1;
      socket.on('data', () => undefined);
      socket.on('close', () => {
        open -= 1;
      });
    });
    const provider = await provide(service(), `http://127.0.0.1:${silent.port}/v1`);
    const { id } = await configAt(service(), provider);
    const caller = new AbortController();
    const started = performance.now();
    const call = fetch(`http://127.0.0.1:${service().running.httpPort}/v1/configs/${id}:checkHealth`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
      signal: caller.signal,
    }).catch(() => 'gone');
    await until(() => open === 1);
    caller.abort();
    expect(await call).toBe('gone');
    await until(() => open === 0);
    expect(performance.now() - started).toBeLessThan(9_000);
  });

  it('ends the request to the provider when its deadline passes', async () => {
    let open = 0;
    const silent = await startTcp((socket) => {
      open += 1;
      socket.on('close', () => {
        open -= 1;
      });
      socket.on('data', () => undefined);
    });
    const provider = await provide(service(), `http://127.0.0.1:${silent.port}/v1`);
    withLimits({ maxCallMs: 1_000 });
    const check = await service().providers.validateApiKey({ provider, api_key: KEY });
    withLimits({ maxCallMs: 30_000 });
    expect(text(check)).toContain('UNREACHABLE');
    await until(() => open === 0);
    expect(
      short((await validated(service(), await provide(service(), await startFakeProvider('openai')), KEY)).status),
    ).toBe('OK');
  });
});

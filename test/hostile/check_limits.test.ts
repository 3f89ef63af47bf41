import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { present } from '../api/handlers/support.js';
import { errorOf, send } from '../http/support.js';
import { KEY, startFakeProvider } from '../providers/fake_provider.js';
import { configAt, ending, environment, provide } from '../support/checked_provider.js';
import { type CallError, useService } from '../support/service.js';

describe('beyond 60 keys a minute', () => {
  const service = useService('embedded', environment);

  it('TOO_MANY_CHECKS with RetryInfo; what it says is enough to wait; nobody was asked; other calls go on', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const { id } = await configAt(service(), provider);
    const validate = () => service().providers.validateApiKey({ provider, api_key: KEY });
    const outcomes = await Promise.allSettled(Array.from({ length: 90 }, validate));
    const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as CallError] : []));
    const taken = outcomes.length - refused.length;
    // 60 a minute: what trickles in while they run is more.
    expect(taken).toBeGreaterThanOrEqual(60);
    expect(taken).toBeLessThanOrEqual(75);
    expect(fake.seen.length).toBe(taken);
    for (const error of refused) {
      expect([error.code, error.reason]).toEqual([8, 'TOO_MANY_CHECKS']);
      expect(present(error.retry)).toBeGreaterThan(0);
      expect(present(error.retry)).toBeLessThanOrEqual(60_000);
      expect(error.message).not.toContain(KEY);
    }
    const http = await send(present(service().running.httpPort), 'POST', `/v1/providers/${provider}:validateApiKey`, {
      body: { api_key: KEY },
    });
    if (http.status !== 200) expect([http.status, errorOf(http).reason]).toEqual([429, 'TOO_MANY_CHECKS']);
    expect(await ending(service().configs.listConfigHealth({}))).toBe('OK');
    // Whether stored configs are counted too is not said; ad-hoc keys must not use up their share in silence.
    expect(await ending(service().configs.checkConfigHealth({ id }))).toMatch(/^OK$|TOO_MANY_CHECKS$/);
    await sleep(Math.min(12_000, Math.max(...refused.map((error) => error.retry ?? 0))) + 300);
    expect(await ending(validate())).toBe('OK');
  });
});

describe('mistakes', () => {
  const service = useService('embedded', environment);

  it('of which nobody is asked are not counted as questions: after a hundred a good request is answered', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    await Promise.all(
      Array.from({ length: 100 }, () => ending(service().providers.validateApiKey({ provider, api_key: '' }))),
    );
    await Promise.all(
      Array.from({ length: 100 }, () =>
        ending(service().providers.validateApiKey({ provider: 'nobody', api_key: KEY })),
      ),
    );
    expect(await ending(service().providers.validateApiKey({ provider, api_key: KEY }))).toBe('OK');
  });
});

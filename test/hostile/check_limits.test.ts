import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { present } from '../api/handlers/support.js';
import { errorOf, send } from '../http/support.js';
import { KEY, startFakeProvider } from '../providers/fake_provider.js';
import { configAt, ending, environment, provide } from '../support/checked_provider.js';
import { type CallError, useService } from '../support/service.js';

describe('more than 60 key checks in a minute', () => {
  const service = useService('embedded', environment);

  it('are rejected with TOO_MANY_CHECKS and a sufficient RetryInfo, without a request to the provider', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const { id } = await configAt(service(), provider);
    const validate = () => service().providers.validateApiKey({ provider, api_key: KEY });
    const started = performance.now();
    const outcomes = await Promise.allSettled(Array.from({ length: 90 }, validate));
    const seconds = (performance.now() - started) / 1000;
    const rejected = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as CallError] : []));
    const accepted = outcomes.length - rejected.length;
    // The limit is 60 per minute; more are admitted while the calls run.
    expect(accepted).toBeGreaterThanOrEqual(60);
    expect(accepted).toBeLessThanOrEqual(61 + seconds);
    expect(fake.seen.length).toBe(accepted);
    for (const error of rejected) {
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
    // Whether stored configs count against the same limit is not specified; the only possible error is TOO_MANY_CHECKS.
    expect(await ending(service().configs.checkConfigHealth({ id }))).toMatch(/^OK$|TOO_MANY_CHECKS$/);
    await sleep(Math.min(12_000, Math.max(...rejected.map((error) => error.retry ?? 0))) + 300);
    expect(await ending(validate())).toBe('OK');
  });
});

describe('invalid requests', () => {
  const service = useService('embedded', environment);

  it('that cause no request to a provider do not count against the limit of checks', async () => {
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

import { describe, expect, it } from 'vitest';
import { callSettings, checkOptions, type ModelOptions } from '../../../src/client/runtime/call_settings.js';

describe('checkOptions', () => {
  it.each([
    [{ mode: 'fast' }, 'mode must be live or whole'],
    [{ deadlineMs: 0 }, 'deadlineMs must be a whole number from 1 to 3600000'],
    [{ firstTokenMs: 1.5 }, 'firstTokenMs must be a whole number from 1 to 3600000'],
    [{ maxAttempts: 101 }, 'maxAttempts must be a whole number from 1 to 100'],
    [{ contentPolicyFallback: 'yes' }, 'contentPolicyFallback must be true or false'],
    [{ runId: 'x'.repeat(101) }, 'runId must be a text of at most 100 characters'],
    [{ fetch: 'http' }, 'fetch must be a function'],
    [{ timeout: 5 }, 'There is no option "timeout" for the calls of a model'],
  ])('rejects %j', (options, message) => {
    expect(() => checkOptions(options as ModelOptions)).toThrow(new TypeError(message));
  });

  it('accepts every option, and undefined', () => {
    checkOptions({ mode: 'whole', deadlineMs: 1, firstTokenMs: 1, idleMs: 1, attemptMs: 1, maxAttempts: 1 });
    checkOptions({ contentPolicyFallback: true, runId: '', fetch, deadlineMs: undefined });
  });
});

describe('callSettings', () => {
  it('has defaults, and gives precedence to later options', () => {
    expect(callSettings()).toMatchObject({ mode: 'live', deadlineMs: 300_000, maxAttempts: 10, runId: '' });
    const settings = callSettings({ mode: 'whole', deadlineMs: 5 }, { deadlineMs: 7, mode: undefined });
    expect(settings).toMatchObject({ mode: 'whole', deadlineMs: 7 });
  });
});

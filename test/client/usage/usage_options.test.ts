import { describe, expect, it } from 'vitest';
import { usageSettings } from '../../../src/client/usage/usage_options.js';

describe('usageSettings', () => {
  it('has the documented defaults, without a directory unless there is a cache file', () => {
    const rest = { maxMemoryRecords: 10_000, maxDiskBytes: 67_108_864, closeMs: 2_000 };
    expect(usageSettings(undefined, undefined)).toEqual({ directory: undefined, ...rest });
    expect(usageSettings({}, '/var/lib/desk/agentllm')).toEqual({ directory: '/var/lib/desk/agentllm.usage', ...rest });
  });

  it('records nothing with false, and only in memory with directory: false', () => {
    expect(usageSettings(false, '/var/lib/desk/agentllm')).toBeUndefined();
    expect(usageSettings({ directory: false }, '/var/lib/desk/agentllm')).toMatchObject({ directory: undefined });
  });

  it.each([
    [true, 'usage must be false or an object'],
    [null, 'usage must be false or an object'],
    [{ directory: '' }, 'usage.directory must be the name of a directory, or false'],
    [{ directory: 7 }, 'usage.directory must be the name of a directory, or false'],
    [{ maxMemoryRecords: 999 }, 'usage.maxMemoryRecords must be a whole number of 1000 to 1000000, not 999'],
    [{ maxDiskBytes: 1.5 }, 'usage.maxDiskBytes must be a whole number of 1048576 to 4294967296, not 1.5'],
    [{ closeMs: 60_001 }, 'usage.closeMs must be a whole number of 0 to 60000, not 60001'],
    [{ closeMs: '5' }, 'usage.closeMs must be a whole number of 0 to 60000, not 5'],
  ])('throws a TypeError for %j', (options, message) => {
    expect(() => usageSettings(options as never, undefined)).toThrow(new TypeError(message));
  });
});

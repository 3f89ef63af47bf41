import { afterEach, describe, expect, it, vi } from 'vitest';
import { EncodeOnce } from '../../../src/api/messages/encode_once.js';
import { EncryptionState } from '../../../src/domain/encryption_state.js';
import { State } from '../../../src/domain/state.js';

afterEach(() => vi.useRealTimers());

const setUp = (maxAgeMs?: number) => {
  const encode = vi.fn((state: State, row: { id: number }, detail: { name: string; note: string }) =>
    Buffer.from(`${state.identity} ${row.id} ${detail.name} ${detail.note}`),
  );
  const once = new EncodeOnce<{ id: number }, { name: string; note: string }>({
    encode,
    inputs: [(_, { name }) => name, (state) => state.revision],
    ...(maxAgeMs !== undefined && { maxAgeMs }),
  });
  return { encode, once, state: new State(), row: { id: 1 } };
};

describe('EncodeOnce', () => {
  it('encodes a row once while its inputs are equal', () => {
    const { encode, once, state, row } = setUp();
    const first = once.get(state, row, { name: 'a', note: 'one' });
    expect(String(first)).toBe(`${state.identity} 1 a one`);
    expect(once.get(state, row, { name: 'a', note: 'two' })).toBe(first);
    expect(once.get(state, row, { name: 'a', note: 'three' })).toBe(first);
    expect(encode).toHaveBeenCalledTimes(1);
  });

  it('encodes each row separately', () => {
    const { encode, once, state, row } = setUp();
    const detail = { name: 'a', note: '' };
    expect(once.get(state, row, detail)).not.toEqual(once.get(state, { id: 2 }, detail));
    once.get(state, row, detail);
    expect(encode).toHaveBeenCalledTimes(2);
  });

  it.each<[string, (state: State, detail: { name: string }) => unknown]>([
    ['an input of the detail', (_, detail) => Object.assign(detail, { name: 'b' })],
    ['an input of the state', (state) => state.apply(state.revision + 1, 'nonce', [])],
    ['the identity of the store', (state) => Object.assign(state, { identity: 'another' })],
    [
      'the encryption state',
      (state) => Object.assign(state, { encryption: new EncryptionState(undefined, undefined) }),
    ],
  ])('encodes a row again after a change of %s, and caches the result', (_, change) => {
    const { encode, once, state, row } = setUp();
    const detail = { name: 'a', note: '' };
    const first = once.get(state, row, detail);
    change(state, detail);
    const second = once.get(state, row, detail);
    expect(second).not.toBe(first);
    expect(once.get(state, row, detail)).toBe(second);
    expect(encode).toHaveBeenCalledTimes(2);
  });

  it('encodes a row again when its encoding is older than maxAgeMs', () => {
    vi.useFakeTimers();
    const { encode, once, state, row } = setUp(1000);
    const detail = { name: 'a', note: '' };
    once.get(state, row, detail);
    vi.advanceTimersByTime(999);
    once.get(state, row, detail);
    expect(encode).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(1);
    once.get(state, row, detail);
    expect(encode).toHaveBeenCalledTimes(2);
  });

  it('caches nothing when encoding fails', () => {
    const { encode, once, state, row } = setUp();
    encode.mockImplementationOnce(() => {
      throw new Error('no');
    });
    expect(() => once.get(state, row, { name: 'a', note: '' })).toThrow('no');
    expect(String(once.get(state, row, { name: 'a', note: '' }))).toContain('1 a');
  });
});

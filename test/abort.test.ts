import { getEventListeners } from 'node:events';
import { describe, expect, it, vi } from 'vitest';
import { onAbort } from '../src/abort.js';

describe('onAbort', () => {
  it('calls the callback once when the signal aborts', () => {
    const [controller, callback] = [new AbortController(), vi.fn()];
    onAbort(controller.signal, callback);
    expect(callback).not.toHaveBeenCalled();
    controller.abort();
    controller.abort();
    expect(callback).toHaveBeenCalledTimes(1);
  });

  it('calls the callback immediately when the signal is already aborted', () => {
    const callback = vi.fn();
    onAbort(AbortSignal.abort(), callback)();
    expect(callback).toHaveBeenCalledTimes(1);
  });

  it('never calls the callback when there is no signal', () => {
    const callback = vi.fn();
    onAbort(undefined, callback)();
    expect(callback).not.toHaveBeenCalled();
  });

  it('does not call the callback after it is released', () => {
    const [controller, callback] = [new AbortController(), vi.fn()];
    const release = onAbort(controller.signal, callback);
    release();
    release();
    controller.abort();
    expect(callback).not.toHaveBeenCalled();
  });

  it('does not call a callback that another callback of the same signal releases', () => {
    const [controller, callback] = [new AbortController(), vi.fn()];
    let release = () => {};
    onAbort(controller.signal, () => release());
    release = onAbort(controller.signal, callback);
    controller.abort();
    expect(callback).not.toHaveBeenCalled();
  });

  it('adds one listener for all callbacks and removes it when the last one is released', () => {
    const { signal } = new AbortController();
    const releases = [1, 2, 3].map(() => onAbort(signal, () => {}));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    for (const release of releases) release();
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});

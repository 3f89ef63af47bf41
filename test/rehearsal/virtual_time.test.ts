import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../../src/rehearsal/virtual_time.js';

const sleep = (time: VirtualTime, ms: number) => new Promise<void>((resolve) => void time.engine.after(ms, resolve));

describe('VirtualTime', () => {
  it('jumps to the next timer while work waits for it', async () => {
    const time = new VirtualTime();
    const start = time.engine.now();
    await time.run(sleep(time, 3_600_000).then(() => sleep(time, 1_000)));
    expect(time.engine.now() - start).toBe(3_601_000);
    expect(time.engine.date().getTime()).toBe(time.provider.now());
  });

  it('stands still while an attempt waits for a response', async () => {
    const time = new VirtualTime();
    let timedOut = false;
    time.engine.after(1_000, () => {
      timedOut = true;
    });
    const end = time.attempt(new AbortController().signal);
    await time.run(delay(50).then(end));
    expect(timedOut).toBe(false);
  });

  it('advances while an attempt waits and the provider does too', async () => {
    const time = new VirtualTime();
    const end = time.attempt(new AbortController().signal);
    const start = time.engine.now();
    await time.run(new Promise<void>((resolve) => void time.provider.schedule(20_000, resolve)).then(end));
    expect(time.engine.now() - start).toBe(20_000);
  });

  it('counts an attempt until its signal aborts', async () => {
    const time = new VirtualTime();
    const abort = new AbortController();
    time.attempt(abort.signal);
    setTimeout(() => abort.abort(), 20);
    await time.run(sleep(time, 60_000));
  });

  it('does not count a cancelled timer of the provider', async () => {
    const time = new VirtualTime();
    const cancel = time.provider.schedule(1_000, () => {});
    cancel();
    cancel();
    let fired = false;
    time.engine.after(500, () => {
      fired = true;
    });
    const end = time.attempt(new AbortController().signal);
    await time.run(delay(30).then(end));
    expect(fired).toBe(false);
  });

  it('passes on the error of the work', async () => {
    const time = new VirtualTime();
    await expect(time.run(sleep(time, 10).then(() => Promise.reject(new Error('failed'))))).rejects.toThrow('failed');
  });
});

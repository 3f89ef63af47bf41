import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { WriteQueue } from '../../../src/store/write/write_queue.js';

const OPTIONS = { items: 4, weight: 10, longestWaitMs: 10_000 };

/** A queue whose batches the test completes one by one; `batches` records their items. */
function makeQueue(options = OPTIONS) {
  const batches: (readonly string[])[] = [];
  const completions: (() => void)[] = [];
  const queue = new WriteQueue<string, string>(options, async (items) => {
    batches.push(items);
    await new Promise<void>((complete) => completions.push(complete));
    if (items.includes('breaks')) throw new RangeError('it broke');
    return items.map((item) =>
      item === 'bad'
        ? { status: 'rejected', reason: new Error('bad') }
        : { status: 'fulfilled', value: `done ${item}` },
    );
  });
  const add = (item: string, { weight = 1, signal }: { weight?: number; signal?: AbortSignal } = {}) =>
    queue.add({ item, weight, signal });
  /** Completes the current batch and waits until the next one begins. */
  const next = async () => {
    completions.shift()?.();
    await sleep(1);
  };
  return { add, next, batches };
}

describe('WriteQueue', () => {
  it('sends the first item alone and the items that arrive in the meantime as one batch, in order', async () => {
    const { add, next, batches } = makeQueue();
    const all = ['a', 'b', 'c', 'd'].map((item) => add(item));
    await next();
    await next();
    expect(await Promise.all(all)).toEqual(['done a', 'done b', 'done c', 'done d']);
    expect(batches).toEqual([['a'], ['b', 'c', 'd']]);
  });

  it('limits a batch by number and weight and sends an item above the weight limit alone', async () => {
    const { add, next, batches } = makeQueue();
    const weights = [1, 1, 1, 1, 1, 6, 4, 1, 99, 1];
    const all = weights.map((weight, at) => add(String(at), { weight }));
    for (let round = 0; round < 6; round++) await next();
    await Promise.all(all);
    expect(batches).toEqual([['0'], ['1', '2', '3', '4'], ['5', '6'], ['7'], ['8'], ['9']]);
  });

  it('rejects one item or all items of a failed batch, and continues with the next batch', async () => {
    const { add, next } = makeQueue();
    const first = add('first');
    const mixed = Promise.allSettled([add('good'), add('bad')]);
    await next();
    await next();
    expect((await mixed).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    const broken = Promise.allSettled([add('breaks')]);
    const after = add('after');
    await next();
    await next();
    expect(await broken).toMatchObject([{ status: 'rejected', reason: { message: 'it broke' } }]);
    expect(await Promise.all([first, after])).toEqual(['done first', 'done after']);
  });

  it('removes an item that is aborted while it waits', async () => {
    const { add, next, batches } = makeQueue();
    const first = add('first');
    const controller = new AbortController();
    const aborted = add('gone', { signal: controller.signal });
    const last = add('last');
    controller.abort(new Error('no longer'));
    await expect(aborted).rejects.toThrow('no longer');
    await expect(add('too late', { signal: controller.signal })).rejects.toThrow('no longer');
    await next();
    await next();
    expect(await Promise.all([first, last])).toEqual(['done first', 'done last']);
    expect(batches).toEqual([['first'], ['last']]);
  });

  it('completes an item that is aborted after its batch has begun', async () => {
    const { add, next } = makeQueue();
    const controller = new AbortController();
    const begun = add('begun', { signal: controller.signal });
    controller.abort();
    await next();
    expect(await begun).toBe('done begun');
  });

  it('rejects an item with WRITE_CONFLICT when it has waited for longestWaitMs', async () => {
    const { add, next, batches } = makeQueue({ ...OPTIONS, longestWaitMs: 20 });
    const first = add('first');
    await expect(add('second')).rejects.toMatchObject({ reason: 'WRITE_CONFLICT' });
    await next();
    expect(await first).toBe('done first');
    expect(batches).toEqual([['first']]);
  });
});

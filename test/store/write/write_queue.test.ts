import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { WriteQueue, type WriteQueueOptions } from '../../../src/store/write/write_queue.js';

const OPTIONS = { items: 4, weight: 10, longestWaitMs: 10_000 };

/** A queue whose batches the test completes one by one; `batches` records their items. */
function makeQueue(options: WriteQueueOptions = OPTIONS) {
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
  /** Adds an item to an idle queue, and waits until its batch has begun. */
  const begin = async (item: string, signal?: AbortSignal) => {
    const result = add(item, { signal });
    await sleep(1);
    return { result };
  };
  /** Completes the current batch and waits until the next one begins. */
  const next = async () => {
    completions.shift()?.();
    await sleep(1);
  };
  return { add, begin, next, batches };
}

describe('WriteQueue', () => {
  it('sends items that arrive together as one batch, and those that arrive meanwhile as the next one, in order', async () => {
    const { add, begin, next, batches } = makeQueue();
    const others = [add('a')];
    const { result } = await begin('b');
    others.push(result, add('c'), add('d'), add('e'));
    await next();
    await next();
    expect(await Promise.all(others)).toEqual(['done a', 'done b', 'done c', 'done d', 'done e']);
    expect(batches).toEqual([
      ['a', 'b'],
      ['c', 'd', 'e'],
    ]);
  });

  it('sends at most `concurrency` batches at the same time', async () => {
    const { add, begin, next, batches } = makeQueue({ ...OPTIONS, concurrency: 2 });
    const { result: first } = await begin('a');
    const { result: second } = await begin('b');
    const others = [add('c'), add('d')];
    await sleep(1);
    expect(batches).toEqual([['a'], ['b']]);
    await next();
    expect(batches).toEqual([['a'], ['b'], ['c', 'd']]);
    await next();
    await next();
    expect(await Promise.all([first, second, ...others])).toEqual(['done a', 'done b', 'done c', 'done d']);
  });

  it('limits a batch by number and weight and sends an item above the weight limit alone', async () => {
    const { add, next, batches } = makeQueue();
    const weights = [1, 1, 1, 1, 6, 4, 1, 99, 1];
    const all = weights.map((weight, at) => add(String(at), { weight }));
    for (let round = 0; round < 6; round++) await next();
    await Promise.all(all);
    expect(batches).toEqual([['0', '1', '2', '3'], ['4', '5'], ['6'], ['7'], ['8']]);
  });

  it('rejects one item or all items of a failed batch, and continues with the next batch', async () => {
    const { add, begin, next } = makeQueue();
    const { result: first } = await begin('first');
    const mixed = Promise.allSettled([add('good'), add('bad')]);
    await next();
    await next();
    expect((await mixed).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    const broken = Promise.allSettled([add('breaks')]);
    await sleep(1);
    const after = add('after');
    await next();
    await next();
    expect(await broken).toMatchObject([{ status: 'rejected', reason: { message: 'it broke' } }]);
    expect(await Promise.all([first, after])).toEqual(['done first', 'done after']);
  });

  it('removes an item that is aborted while it waits', async () => {
    const { add, begin, next, batches } = makeQueue();
    const { result: first } = await begin('first');
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
    const { begin, next } = makeQueue();
    const controller = new AbortController();
    const { result: begun } = await begin('begun', controller.signal);
    controller.abort();
    await next();
    expect(await begun).toBe('done begun');
  });

  it('rejects an item with WRITE_CONFLICT when it has waited for longestWaitMs', async () => {
    const { add, begin, next, batches } = makeQueue({ ...OPTIONS, longestWaitMs: 20 });
    const { result: first } = await begin('first');
    await expect(add('second')).rejects.toMatchObject({ reason: 'WRITE_CONFLICT' });
    await next();
    expect(await first).toBe('done first');
    expect(batches).toEqual([['first']]);
  });
});

import { describe, expect, it, vi } from 'vitest';
import type { AgentMaterial, CatalogueMaterial, ChangeEvent } from '../../src/feed/change_event.js';
import { filterOf } from '../../src/feed/filter.js';
import { LiveIndex } from '../../src/feed/live_index.js';
import { type Sink, Watch } from '../../src/feed/watch.js';

const watcher = { client_id: '', client_name: '', client_version: '' };
const agent = (id: number, name = `agent ${id}`) => ({ id, name }) as AgentMaterial;
const event = (agents: readonly AgentMaterial[], catalogue: readonly CatalogueMaterial[] = []): ChangeEvent => ({
  revision: 1,
  nonce: '',
  cause: { actor: '', method: '', reason: '', created_at: new Date(0) },
  agents,
  catalogue,
});

function start() {
  const index = new LiveIndex();
  const watch = (all: boolean, names: string[] = [], ids: number[] = [], scope?: string[]) => {
    const filter = filterOf(all, new Set(names), new Set(ids), scope && new Set(scope));
    const added = new Watch(filter, watcher, {} as Sink);
    index.add(added);
    return added;
  };
  return { index, watch };
}

describe('the index of live watches', () => {
  it('returns each watch that a revision concerns once', () => {
    const { index, watch } = start();
    const [all, byName, byId] = [watch(true), watch(false, ['agent 1', 'agent 2']), watch(false, [], [1, 2])];
    const other = watch(false, ['agent 3'], [3]);
    const hidden = watch(false, [], [1], ['another name']);
    expect(index.concernedBy(event([agent(1), agent(2)]))).toEqual([all, byName, byId]);
    expect(index.concernedBy(event([agent(1)]))).toEqual([all, byName, byId]);
    expect(new Set(index.concernedBy(event([], [{} as CatalogueMaterial])))).toEqual(
      new Set([all, byName, byId, other, hidden]),
    );
    index.remove(byName);
    expect(index.concernedBy(event([agent(1), agent(2)]))).toEqual([all, byId]);
  });

  it('returns no watch for a revision without changes, such as a rotation', () => {
    const { index, watch } = start();
    watch(true);
    expect(index.concernedBy(event([]))).toEqual([]);
  });

  it('visits the watches of all agents once for a revision with many agents', () => {
    const { index, watch } = start();
    for (let at = 0; at < 10; at++) watch(true);
    const many = event(Array.from({ length: 1000 }, (_, id) => agent(id)));
    const iterations = vi.spyOn(Set.prototype, Symbol.iterator);
    const concerned = index.concernedBy(many);
    const { length } = iterations.mock.calls;
    iterations.mockRestore();
    expect(concerned).toHaveLength(10);
    expect(length).toBeLessThan(10);
  });
});

import { setTimeout as sleep } from 'node:timers/promises';
import { DeleteCredentialResponse } from '../../../gen/ts/agentllm/v1/credential_service.js';
import type { AdoptingWatcher, Adoption } from '../../../gen/ts/agentllm/v1/write.js';
import type { ChangeEvent } from '../../feed/change_event.js';
import type { WatcherRegistry } from '../../feed/watcher_registry.js';
import { limits } from '../../limits.js';
import { type Adopted, countAdopted } from '../../store/watchers.js';
import type { Backend } from './backend.js';

const FIRST_LOOK_MS = 50;
const LONGEST_PAUSE_MS = 250;

/**
 * Adds to the answer of a write who has applied it, as soon as nobody is pending or the time is over. The write is done
 * whatever happens here, so what was seen last is answered when the database is away, or says nothing for as long as
 * the caller waits: an answer that knows less is better than an error that says it failed.
 */
export async function withAdoption(
  backend: Backend,
  bytes: Uint8Array,
  { waitMs, remainingMs }: { readonly waitMs: number; readonly remainingMs: number },
): Promise<Uint8Array> {
  // Every write has its revision in the same field; this message has no other field that could read another's.
  const revision = Number(DeleteCredentialResponse.decode(bytes).revision);
  let adoption = nobodyKnows;
  const hear = (seen: Adoption) => {
    adoption = seen;
  };
  const answered = new AbortController();
  const late = sleep(remainingMs, undefined, { signal: answered.signal }).catch(() => {});
  const leave = waitMs > 0 ? takePlace(backend) : undefined;
  const end = performance.now() + (leave ? Math.min(waitMs, remainingMs) : 0);
  await Promise.race([follow(backend, revision, end, hear), late]).catch(() => {});
  leave?.();
  answered.abort();
  const encoded = DeleteCredentialResponse.encode({ revision: 0n, adoption }).finish();
  return Buffer.concat([bytes, encoded]);
}

/** How many writes wait on a server. */
const waiting = new WeakMap<WatcherRegistry, number>();

/** One of the places to wait in, with how to leave it; undefined: all are taken. */
function takePlace({ watcherRegistry: presence }: Backend): (() => void) | undefined {
  const taken = waiting.get(presence) ?? 0;
  if (taken >= limits.adoptionWaits) return undefined;
  waiting.set(presence, taken + 1);
  return () => void waiting.set(presence, (waiting.get(presence) ?? 0) - 1);
}

const nobodyKnows: Adoption = { complete: false, applied_count: 0, pending_count: 0, applied: [], pending: [] };

async function follow(backend: Backend, revision: number, end: number, hear: (seen: Adoption) => void): Promise<void> {
  const agents = agentsIn(await backend.watches.entryAt(revision));
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE_MS)) {
    const adoption = await look(backend, revision, agents);
    hear(adoption);
    const left = end - performance.now();
    if (adoption.complete || left <= 0) return;
    await sleep(Math.min(pause, left));
  }
}

/** Whom a revision concerns, as the table names them; undefined: everybody. */
function agentsIn({ agents, catalogue }: ChangeEvent): string[] | undefined {
  if (catalogue.length > 0) return undefined;
  return agents.flatMap(({ id, name }) => (id === undefined ? [name] : [name, `#${id}`]));
}

async function look(
  { store, watcherRegistry: presence }: Backend,
  revision: number,
  agents: string[] | undefined,
): Promise<Adoption> {
  await presence.flush();
  const { knex } = store.database;
  const { applied, pending, ...counts } = await countAdopted(knex, revision, agents, limits.namedWatchers);
  return {
    complete: counts.pending_count === 0,
    ...counts,
    applied: applied.map(named),
    pending: pending.map(named),
  };
}

const named = ({ applied_revision, ...who }: Adopted['applied'][number]): AdoptingWatcher => ({
  ...who,
  applied_revision: BigInt(applied_revision ?? 0),
});

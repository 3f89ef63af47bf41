import { setTimeout as sleep } from 'node:timers/promises';
import { DeleteCredentialResponse } from '../../../gen/ts/agentllm/v1/credential_service.js';
import type { AdoptingWatcher, Adoption } from '../../../gen/ts/agentllm/v1/write.js';
import { onAbort } from '../../abort.js';
import type { ChangeEvent } from '../../feed/change_event.js';
import { limits } from '../../limits.js';
import { type Adopted, countAdopted } from '../../store/watchers.js';
import type { Call } from '../dispatch/method.js';
import type { AdoptionBackend } from './backend.js';

/** The part of a call that its wait for adoption needs. */
type WaitingCall = Pick<Call<unknown, unknown>, 'signal' | 'recheckCaller'>;

const FIRST_POLL_MS = 50;
const MAX_PAUSE_MS = 250;

/**
 * Adds to the response of a write which watchers have applied the write. Waits until no watcher is pending, the time
 * limit is reached, or the call ends. The write is already committed, so the last known state is returned if the
 * database is unavailable or does not respond within the deadline: an incomplete response is better than an error that
 * suggests that the write failed.
 * A caller whose token is revoked during the wait learns nothing about the watchers.
 */
export async function withAdoption(
  backend: AdoptionBackend,
  bytes: Uint8Array,
  waitMs: number,
  call: WaitingCall,
): Promise<Uint8Array> {
  // Every write response has its revision in the same field. Decoded as this message, the other fields are skipped.
  const revision = Number(DeleteCredentialResponse.decode(bytes).revision);
  const { signal } = call;
  let adoption = unknownAdoption;
  const onUpdate = (latest: Adoption) => {
    adoption = unknownAdoption;
    call.recheckCaller();
    adoption = latest;
  };
  let release = () => {};
  const ended = new Promise<void>((resolve) => {
    release = onAbort(signal, resolve);
  });
  // If too many writes already wait, this write does not wait, and its response has the current state.
  const waits = waitMs > 0 && backend.adoptionWaits.tryEnter();
  const limit = { end: performance.now() + (waits ? waitMs : 0), signal };
  try {
    await Promise.race([pollAdoption(backend, revision, limit, onUpdate), ended]);
  } catch {
    // The response has the last known state.
  } finally {
    if (waits) backend.adoptionWaits.leave();
    release();
  }
  const encoded = DeleteCredentialResponse.encode({ revision: 0n, adoption }).finish();
  return Buffer.concat([bytes, encoded]);
}

const unknownAdoption: Adoption = { complete: false, applied_count: 0, pending_count: 0, applied: [], pending: [] };

async function pollAdoption(
  backend: AdoptionBackend,
  revision: number,
  { end, signal }: { readonly end: number; readonly signal: AbortSignal },
  onUpdate: (latest: Adoption) => void,
): Promise<void> {
  const agents = agentsIn(await backend.watches.eventAt(revision));
  for (let pause = FIRST_POLL_MS; ; pause = Math.min(pause * 1.5, MAX_PAUSE_MS)) {
    const adoption = await readAdoption(backend, revision, agents);
    onUpdate(adoption);
    const remaining = end - performance.now();
    if (adoption.complete || remaining <= 0 || signal.aborted) return;
    await sleep(Math.min(pause, remaining), undefined, { signal });
  }
}

/** The agents that a revision concerns, as in the `watchers` table; undefined: all. */
function agentsIn({ agents, catalogue }: ChangeEvent): string[] | undefined {
  if (catalogue.length > 0) return undefined;
  return agents.flatMap(({ id, name }) => (id === undefined ? [name] : [name, `#${id}`]));
}

async function readAdoption(
  { store, watcherRegistry }: AdoptionBackend,
  revision: number,
  agents: string[] | undefined,
): Promise<Adoption> {
  await watcherRegistry.flush();
  const { knex } = store.database;
  const { applied, pending, ...counts } = await countAdopted(knex, revision, agents, limits.namedWatchers);
  return {
    complete: counts.pending_count === 0,
    ...counts,
    applied: applied.map(named),
    pending: pending.map(named),
  };
}

const named = ({ applied_revision, ...watcher }: Adopted['applied'][number]): AdoptingWatcher => ({
  ...watcher,
  applied_revision: BigInt(applied_revision ?? 0),
});

import type { Config } from '../../domain/rows.js';
import { ServiceError } from '../../errors.js';
import { onDatabase } from '../../store/failure.js';
import { configAt, type PastConfig } from '../../store/history/history.js';
import { readHead } from '../../store/write/head.js';
import type { Backend } from './backend.js';

/** Waits until this replica has reached a revision; throws REVISION_IN_FUTURE if the store has not. */
export async function requireHistory({ store, feed }: Backend, revision: bigint, signal: AbortSignal): Promise<void> {
  if (revision <= store.state.revision) return;
  const head = await onDatabase(store, (db) => readHead(db));
  if (revision > head.revision)
    throw ServiceError.of('REVISION_IN_FUTURE', { revision: String(revision), newest: String(head.revision) });
  await feed.reached(revision, signal);
}

/** A config at a revision; throws if it did not exist yet, or if the history no longer contains the revision. */
export async function historicalConfig(
  backend: Backend,
  id: number,
  revision: bigint,
  signal: AbortSignal,
): Promise<PastConfig> {
  await requireHistory(backend, revision, signal);
  const past = await configAt(backend.store, id, Number(revision));
  if (!past) throw notInHistory(id, revision);
  return past;
}

/** A config that existed at a revision. */
export interface Earlier extends PastConfig {
  readonly config: Config;
}

/** Like `historicalConfig`, but also throws if the config was deleted at that revision. */
export async function existingConfigAt(...args: Parameters<typeof historicalConfig>): Promise<Earlier> {
  const past = await historicalConfig(...args);
  const { config } = past;
  const [, id, revision] = args;
  if (!config) throw notInHistory(id, revision);
  return { ...past, config };
}

function notInHistory(id: number, revision: bigint): ServiceError {
  const resources = [{ type: 'config', name: String(id) }] as const;
  return ServiceError.of('CONFIG_REVISION_NOT_FOUND', { id: String(id), revision: String(revision) }, { resources });
}

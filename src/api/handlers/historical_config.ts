import type { Config } from '../../domain/rows.js';
import { ServiceError } from '../../errors.js';
import { onDatabase } from '../../store/failure.js';
import { configAt, type PastConfig } from '../../store/history/history.js';
import { readHead } from '../../store/write/head.js';
import type { Backend } from './backend.js';

/** Waits until a revision of the past is past here too; refuses one that the store has not come to. */
export async function requireHistory({ store, feed }: Backend, revision: bigint, signal: AbortSignal): Promise<void> {
  if (revision <= store.state.revision) return;
  const head = await onDatabase(store, (db) => readHead(db));
  if (revision > head.revision)
    throw ServiceError.of('REVISION_IN_FUTURE', { revision: String(revision), newest: String(head.revision) });
  await feed.reached(revision, signal);
}

/** A config as it was at a revision; refused where there was none by then, or its history is not kept that far. */
export async function historicalConfig(
  backend: Backend,
  id: number,
  revision: bigint,
  signal: AbortSignal,
): Promise<PastConfig> {
  await requireHistory(backend, revision, signal);
  const past = await configAt(backend.store, id, Number(revision));
  if (!past) throw noPast(id, revision);
  return past;
}

/** A config that there was at a revision. */
export interface Earlier extends PastConfig {
  readonly config: Config;
}

/** As `pastConfig`, and refused too where it was deleted by then. */
export async function standingThen(...where: Parameters<typeof historicalConfig>): Promise<Earlier> {
  const past = await historicalConfig(...where);
  const { config } = past;
  const [, id, revision] = where;
  if (!config) throw noPast(id, revision);
  return { ...past, config };
}

function noPast(id: number, revision: bigint): ServiceError {
  const resources = [{ type: 'config', name: String(id) }] as const;
  return ServiceError.of('CONFIG_REVISION_NOT_FOUND', { id: String(id), revision: String(revision) }, { resources });
}

import type { BlockList } from 'node:net';
import type { ConcurrencyLimiter } from '../../concurrency_limiter.js';
import type { BudgetMonitor } from '../../feed/budget_monitor.js';
import type { Feed } from '../../feed/feed.js';
import type { WatcherRegistry } from '../../feed/watcher_registry.js';
import type { Watches } from '../../feed/watches.js';
import type { Log } from '../../log.js';
import type { UsageMetrics } from '../../metrics.js';
import type { OutcomeWriter } from '../../store/experiments/outcome_writer.js';
import type { Store } from '../../store/store.js';
import type { UsageWriter } from '../../store/usage/usage_writer.js';
import type { AccessLog } from '../dispatch/access_log.js';
import type { Authorizer } from '../dispatch/authorizer.js';

/** The components that reads use. */
export interface ReadBackend {
  readonly store: Store;
  readonly feed: Pick<Feed, 'reached'>;
}

/** The components that a write uses to wait for adoption. */
export type AdoptionBackend = Pick<Backend, 'store' | 'watches' | 'watcherRegistry' | 'adoptionWaits'>;

/** The components that writes use. If they are only the store, writes do not wait for adoption. */
export type WriteBackend = Pick<Backend, 'store'> | AdoptionBackend;

/** The components that the handlers use. */
export interface Backend {
  readonly store: Store;
  readonly feed: Feed;
  /** The open watches, and their rows in the `watchers` table. */
  readonly watches: Watches;
  readonly watcherRegistry: WatcherRegistry;
  /** The writes that wait for watchers to adopt them. */
  readonly adoptionWaits: ConcurrencyLimiter;
  /** The current amounts of budgets. */
  readonly budgets: BudgetMonitor;
  readonly authorizer: Authorizer;
  /** Records the use of tokens and refused calls. */
  readonly accessLog: AccessLog;
  /** The period within which a watch can resume, in ms. */
  readonly watchRetentionMs: number;
  /** How long recorded attempts are retained, in ms. */
  readonly usageRetentionMs: number;
  readonly usageWriter: UsageWriter;
  readonly outcomeWriter: OutcomeWriter;
  readonly usageMetrics: UsageMetrics;
  /** Non-public addresses that are allowed for providers. */
  readonly allowedAddresses: BlockList;
  /** The provider keys in the environment, by variable. */
  readonly providerKeys: ReadonlyMap<string, string>;
  readonly log: Log;
}

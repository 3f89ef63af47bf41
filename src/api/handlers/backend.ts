import type { BlockList } from 'node:net';
import type { ConcurrencyLimiter } from '../../concurrency_limiter.js';
import type { Feed } from '../../feed/feed.js';
import type { WatcherRegistry } from '../../feed/watcher_registry.js';
import type { Watches } from '../../feed/watches.js';
import type { Log } from '../../log.js';
import type { Store } from '../../store/store.js';
import type { AccessLog } from '../dispatch/access_log.js';
import type { Authorizer } from '../dispatch/authorizer.js';

/** What reads need. */
export interface ReadBackend {
  readonly store: Store;
  readonly feed: Pick<Feed, 'reached'>;
}

/** What a write that waits for adoption needs. */
export type AdoptionBackend = Pick<Backend, 'store' | 'watches' | 'watcherRegistry' | 'adoptionWaits'>;

/** What writes need; without the second part, none of them waits for adoption. */
export type WriteBackend = Pick<Backend, 'store'> | AdoptionBackend;

/** What the services work on. */
export interface Backend {
  readonly store: Store;
  readonly feed: Feed;
  /** The streams of WatchConfigs, and what the `watchers` table is told of them. */
  readonly watches: Watches;
  readonly watcherRegistry: WatcherRegistry;
  /** The writes that wait for watchers to adopt them. */
  readonly adoptionWaits: ConcurrencyLimiter;
  readonly authorizer: Authorizer;
  /** What callers leave behind. */
  readonly accessLog: AccessLog;
  /** How far back a stream can be resumed, in ms. */
  readonly watchRetentionMs: number;
  /** Addresses at which providers may be although they are not public. */
  readonly allowedAddresses: BlockList;
  /** The keys of providers that the environment has, by their variables. */
  readonly providerKeys: ReadonlyMap<string, string>;
  readonly log: Log;
}

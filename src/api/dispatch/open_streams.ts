import type { Principal } from '../../domain/access.js';
import { ServiceError } from '../../errors.js';
import type { Sink } from '../../feed/watch.js';
import { limits } from '../../limits.js';
import type { CommittedRevision } from '../../store/replica_state.js';
import type { Store } from '../../store/store.js';

/** How often streams are looked at whose token may have come to its end. */
const LOOK_MS = 1_000;

/** What throws once a stream is no longer for its caller. */
export interface Checks {
  /** The caller may call nothing any more. */
  caller(): void;
  /** The stream is about agents that the caller may not watch any more. */
  agents(): void;
}

interface Open {
  readonly sink: Sink;
  readonly checks: Checks;
}

/**
 * The streams that are open: each ends as soon as its caller may not have it any more. It must follow the store before
 * whoever writes to them, so that a revision that takes access away is not handed to those that it takes it from.
 */
export class OpenStreams {
  private readonly streams = new Set<Open>();
  /** How many each token has, by the ids of their rows. */
  private readonly counts = new Map<number, number>();
  private readonly timer: NodeJS.Timeout;
  private readonly unfollow: () => void;

  constructor(store: Store) {
    this.unfollow = store.follow({
      applied: ({ changes }) => {
        if (changes.some(({ entity }) => entity === 'token')) this.look('caller');
        if (changes.some(isRenamed)) this.look('agents');
      },
      replaced: () => {
        this.look('caller');
        this.look('agents');
      },
    });
    this.timer = setInterval(() => this.look('caller'), LOOK_MS).unref();
  }

  /** Keeps an eye on a stream; throws when its token has enough of them, so that one cannot take the place of all. */
  add(sink: Sink, { token }: Principal, checks: Checks): void {
    const open = { sink, checks };
    if (token) this.count(token.id, 1);
    this.streams.add(open);
    sink.onClose(() => {
      this.streams.delete(open);
      if (token) this.count(token.id, -1);
    });
  }

  close(): void {
    clearInterval(this.timer);
    this.unfollow();
  }

  private count(token: number, by: 1 | -1): void {
    const streams = (this.counts.get(token) ?? 0) + by;
    if (streams > limits.streamsPerToken) throw ServiceError.of('TOO_MANY_WATCHES', { watches: `${streams - 1}` });
    if (streams > 0) this.counts.set(token, streams);
    else this.counts.delete(token);
  }

  private look(what: keyof Checks): void {
    for (const { sink, checks } of [...this.streams])
      try {
        checks[what]();
      } catch (error) {
        sink.end(error);
      }
  }
}

/** Whether a change may take an agent out of what tokens are for. */
const isRenamed = (change: CommittedRevision['changes'][number]): boolean =>
  change.entity === 'agent' && change.before?.name !== change.after?.name;

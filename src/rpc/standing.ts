import type { Sink } from '../feed/watch.js';
import type { Made, Store } from '../store/store.js';

/** How often streams are looked at whose token may have come to its end. */
const LOOK_MS = 1_000;

/** An open stream, and what throws once its caller may not have it any more. */
interface Open {
  readonly sink: Sink;
  readonly check: () => void;
}

/**
 * The streams that are open: each ends as soon as its caller may not have it any more. It must follow the store before
 * whoever writes to them, so that a revision that takes access away is not handed to those that it takes it from.
 */
export class Standing {
  private readonly streams = new Set<Open>();
  private readonly timer: NodeJS.Timeout;
  private readonly unfollow: () => void;

  constructor(store: Store) {
    this.unfollow = store.follow({
      applied: (made) => {
        if (movesAccess(made)) this.look();
      },
      replaced: () => this.look(),
    });
    this.timer = setInterval(() => this.look(), LOOK_MS).unref();
  }

  add(sink: Sink, check: () => void): void {
    const open = { sink, check };
    this.streams.add(open);
    sink.onClose(() => this.streams.delete(open));
  }

  close(): void {
    clearInterval(this.timer);
    this.unfollow();
  }

  private look(): void {
    for (const { sink, check } of [...this.streams])
      try {
        check();
      } catch (error) {
        sink.end(error);
      }
  }
}

/** Whether a revision may take a stream from somebody: by a token, or by another name of an agent. */
const movesAccess = ({ changes }: Made): boolean =>
  changes.some(
    (change) => change.entity === 'token' || (change.entity === 'agent' && change.before?.name !== change.after?.name),
  );

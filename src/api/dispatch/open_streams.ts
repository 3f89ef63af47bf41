import { ConcurrencyLimiter, type Refusal } from '../../concurrency_limiter.js';
import type { Principal } from '../../domain/access.js';
import { ServiceError } from '../../errors.js';
import type { Sink } from '../../feed/watch.js';
import { limits } from '../../limits.js';
import type { CommittedRevision, RevisionListener } from '../../store/replica_state.js';

/** How often streams are checked for tokens that have expired. */
const CHECK_MS = 1_000;

/** The checks of an open stream; each throws if the caller has lost access. */
export interface Checks {
  /** Throws if the caller is no longer authenticated. */
  caller(): void;
  /** Throws if the stream covers agents that the caller may no longer watch. */
  agents(): void;
}

interface Open {
  readonly sink: Sink;
  readonly checks: Checks;
}

/**
 * The open streams. A stream ends as soon as its caller loses access to it. `Watches` notifies this class of a revision
 * before it delivers the revision, so that a caller does not receive a revision that revokes its access.
 */
export class OpenStreams implements RevisionListener {
  private readonly streams = new Set<Open>();
  private readonly limiter = new ConcurrencyLimiter({ perKey: () => limits.streamsPerToken });
  private readonly timer = setInterval(() => this.check('caller'), CHECK_MS).unref();

  applied({ changes }: CommittedRevision): void {
    if (changes.some(({ entity }) => entity === 'token')) this.check('caller');
    if (changes.some(isRenamed)) this.check('agents');
  }

  replaced(): void {
    this.check('caller');
    this.check('agents');
  }

  /** Registers a stream; throws if its token has the maximum number, so that one token cannot use all streams. */
  add(sink: Sink, { token }: Principal, checks: Checks): void {
    const open = { sink, checks };
    if (token) this.limiter.enter(token.id, tooManyStreams);
    this.streams.add(open);
    sink.onClose(() => {
      this.streams.delete(open);
      if (token) this.limiter.leave(token.id);
    });
  }

  close(): void {
    clearInterval(this.timer);
  }

  private check(checkName: keyof Checks): void {
    for (const { sink, checks } of [...this.streams])
      try {
        checks[checkName]();
      } catch (error) {
        sink.end(error);
      }
  }
}

const tooManyStreams: Refusal = (count) =>
  ServiceError.of('TOO_MANY_WATCHES', { watches: String(count), scope: 'token' });

/** Whether an agent was renamed, created or deleted, so that a token for certain agents may lose or gain access to it. */
const isRenamed = (change: CommittedRevision['changes'][number]): boolean =>
  change.entity === 'agent' && change.before?.name !== change.after?.name;

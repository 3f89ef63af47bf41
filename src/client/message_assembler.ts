import type {
  CatalogueItem,
  ChangeCause,
  ConfigChanges,
  WatchConfigsResponse,
  WatchedAgent,
  WatchStarted,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Batch } from './view.js';

/** What a message of the stream makes known, once it is known whole. */
export type Known =
  /** With the newest revision that the service has. */
  | { readonly kind: 'started'; readonly started: WatchStarted; readonly newest: bigint }
  | { readonly kind: 'batch'; readonly batch: Batch }
  /** Everything up to a revision has come. */
  | { readonly kind: 'bookmark'; readonly revision: bigint; readonly token: string };

interface Parts {
  readonly agents: WatchedAgent[];
  readonly catalogue: CatalogueItem[];
}

const none = (): Parts => ({ agents: [], catalogue: [] });

/**
 * Puts the messages of one stream together to what can be applied: a snapshot from its begin to its end, the changes of
 * a revision when the message with its resume token is there. What a broken stream leaves half done goes with it.
 * Messages of kinds that this version does not know say nothing, but complete their revision like others.
 */
export class MessageAssembler {
  private snapshot: Parts | undefined;
  private changes: Parts | undefined;
  private cause: ChangeCause | undefined;

  add(message: WatchConfigsResponse): Known | undefined {
    const { revision, resume_token: token } = message;
    if (message.started) return { kind: 'started', started: message.started, newest: revision };
    if (message.snapshot_begin) {
      this.snapshot = none();
      this.changes = undefined;
      return undefined;
    }
    if (message.snapshot) {
      collect(this.snapshot, message.snapshot);
      return undefined;
    }
    if (message.snapshot_end) return this.endSnapshot(revision, token);
    if (message.changes) {
      this.changes ??= none();
      collect(this.changes, message.changes);
      this.cause = message.cause;
    }
    if (token === '') return undefined;
    if (this.changes) return this.endRevision(revision, token);
    return { kind: 'bookmark', revision, token };
  }

  private endSnapshot(revision: bigint, token: string): Known | undefined {
    const parts = this.snapshot;
    this.snapshot = undefined;
    return parts && { kind: 'batch', batch: { revision, token, ...parts, cause: undefined, snapshot: true } };
  }

  private endRevision(revision: bigint, token: string): Known {
    const { changes = none(), cause } = this;
    this.changes = undefined;
    this.cause = undefined;
    return { kind: 'batch', batch: { revision, token, ...changes, cause, snapshot: false } };
  }
}

function collect(parts: Parts | undefined, { agents, catalogue }: ConfigChanges): void {
  // Not by spreading: a part may have more than fit on the stack.
  for (const agent of agents) parts?.agents.push(agent);
  for (const item of catalogue) parts?.catalogue.push(item);
}

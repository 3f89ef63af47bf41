import type {
  CatalogueItem,
  ChangeCause,
  ConfigChanges,
  WatchConfigsResponse,
  WatchedAgent,
  WatchStarted,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { BudgetState } from '../../gen/ts/agentllm/v1/budget.js';
import type { Batch } from './view.js';

/** A complete event of the stream. */
export type WatchEvent =
  /** `newest` is the newest revision of the service. */
  | { readonly kind: 'started'; readonly started: WatchStarted; readonly newest: bigint }
  | { readonly kind: 'batch'; readonly batch: Batch }
  /** States of budgets, which have no revision. */
  | { readonly kind: 'budget_states'; readonly states: readonly BudgetState[]; readonly complete: boolean }
  /** Everything up to the revision has been delivered. */
  | { readonly kind: 'bookmark'; readonly revision: bigint; readonly token: string };

interface Parts {
  readonly agents: WatchedAgent[];
  readonly catalogue: CatalogueItem[];
}

const noParts = (): Parts => ({ agents: [], catalogue: [] });

/**
 * Assembles the messages of one stream into events that can be applied atomically: a snapshot when its end arrives, the
 * changes of a revision when the message with its resume token arrives. An incomplete event of a broken stream is
 * discarded. A message of an unknown kind has no content, but its resume token completes the revision.
 */
export class MessageAssembler {
  private snapshot: Parts | undefined;
  private changes: Parts | undefined;
  private cause: ChangeCause | undefined;

  add(message: WatchConfigsResponse): WatchEvent | undefined {
    const { revision, resume_token: token } = message;
    if (message.started) return { kind: 'started', started: message.started, newest: revision };
    if (message.budget_states) return { kind: 'budget_states', ...message.budget_states };
    if (message.snapshot_begin) {
      this.snapshot = noParts();
      this.changes = undefined;
      return undefined;
    }
    if (message.snapshot) {
      collect(this.snapshot, message.snapshot);
      return undefined;
    }
    if (message.snapshot_end) return this.endSnapshot(revision, token);
    if (message.changes) {
      this.changes ??= noParts();
      collect(this.changes, message.changes);
      this.cause = message.cause;
    }
    if (token === '') return undefined;
    if (this.changes) return this.endRevision(revision, token);
    return { kind: 'bookmark', revision, token };
  }

  private endSnapshot(revision: bigint, token: string): WatchEvent | undefined {
    const parts = this.snapshot;
    this.snapshot = undefined;
    return parts && { kind: 'batch', batch: { revision, token, ...parts, cause: undefined, snapshot: true } };
  }

  private endRevision(revision: bigint, token: string): WatchEvent {
    const { changes = noParts(), cause } = this;
    this.changes = undefined;
    this.cause = undefined;
    return { kind: 'batch', batch: { revision, token, ...changes, cause, snapshot: false } };
  }
}

function collect(parts: Parts | undefined, { agents, catalogue }: ConfigChanges): void {
  // Spreading into push() would overflow the stack for a large part.
  for (const agent of agents) parts?.agents.push(agent);
  for (const item of catalogue) parts?.catalogue.push(item);
}

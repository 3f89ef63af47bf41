import { AgentHandle, type Holder, type WatchedResidentAgent } from './agent.js';
import type { Change, Changes } from './change.js';
import type { ListenOptions } from './events.js';

/** Who holds agents, and hears of their changes. */
export interface Watching extends Holder {
  on(event: 'change', listener: (change: Change) => unknown, options?: ListenOptions): () => void;
  changes(options?: ListenOptions): Changes;
}

/** An agent with what only the client knows of it. */
export class WatchedHandle extends AgentHandle implements WatchedResidentAgent {
  constructor(
    name: string,
    private readonly watching: Watching,
  ) {
    super(name, watching);
  }

  onChange(listener: (change: Change) => unknown, options?: ListenOptions): () => void {
    const own = (change: Change) => (this.concerns(change) ? listener(change) : undefined);
    return this.watching.on('change', own, options);
  }

  changes(options?: ListenOptions): AsyncIterableIterator<Change> {
    return this.watching.changes(options).only((change) => this.concerns(change));
  }

  private concerns({ agents, catalogue }: Change): boolean {
    return catalogue || agents.includes(this.name);
  }
}
